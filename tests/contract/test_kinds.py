"""Every kind of environment, held to what `haversack.kinds.Kind` promises."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import haversack.kinds
from haversack.testing.contracts import Journey, KindContract, travel
from tests.support.tiny import outside

REGISTRY = Path(haversack.kinds.__file__).parent
SAMPLES = Path(__file__).parent / "samples"


def modules(registry: Path) -> list[str]:
    """The kinds of a registry: every module of its folder, as `kinds()` finds them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(registry)]))


def travelling(registry: Path) -> list[str]:
    """The kinds that carry something; platforms carry settings alone (`test_platforms.py`)."""
    return [name for name in modules(registry) if name != "platform"]


def without_sample(registry: Path) -> list[str]:
    """The kinds that bring no sample."""
    return [name for name in travelling(registry) if not (SAMPLES / f"{name}.py").is_file()]


def test_every_kind_brings_its_sample() -> None:
    """A new kind is not accepted before `samples/<module>.py` shows what it is for."""
    assert without_sample(REGISTRY) == []
    assert "pip" in modules(REGISTRY)


def test_a_kind_without_a_sample_is_noticed(tmp_path: Path) -> None:
    """The test above fails for a module that somebody adds to the registry."""
    copy = tmp_path / "kinds"
    shutil.copytree(REGISTRY, copy)
    (copy / "spack.py").write_text("KIND = None\n")
    assert without_sample(copy) == ["spack"]


def test_the_registry_is_the_folder() -> None:
    """`kinds()` finds just the modules of the folder, each with a name of its own."""
    found = {type(kind).__module__.rpartition(".")[2] for kind in haversack.kinds.kinds().values()}
    assert sorted(found) == modules(REGISTRY)


@pytest.fixture(scope="module", params=travelling(REGISTRY))
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """The sample of a kind that went the whole way."""
    name = request.param
    folder = tmp_path_factory.mktemp(f"kind-{name}")
    kind = importlib.import_module(f"haversack.kinds.{name}").KIND
    brought = importlib.import_module(f"tests.contract.samples.{name}")
    with brought.sample(folder) as sample:
        yield travel(kind, sample, folder / "prefix", outside(folder / "store"))


class TestKinds(KindContract):
    """The contract, for each module of the registry."""
