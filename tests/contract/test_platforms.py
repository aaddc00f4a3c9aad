"""Every platform, held to what `haversack.platforms.Platform` promises."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from pathlib import Path

import pytest

import haversack.platforms
from haversack.testing.contracts import PlatformContract
from haversack.testing.contracts.platform import Declared, declare
from tests.support.tiny import outside

REGISTRY = Path(haversack.platforms.__file__).parent
SAMPLES = Path(__file__).parent / "samples" / "platforms"


def modules(registry: Path) -> list[str]:
    """The platforms of a registry: every module of its folder, as `platforms()` finds them."""
    return sorted(module.name for module in pkgutil.iter_modules([str(registry)]))


def without_sample(registry: Path) -> list[str]:
    """The platforms that bring no sample."""
    return [name for name in modules(registry) if not (SAMPLES / f"{name}.py").is_file()]


def test_every_platform_brings_its_sample(tmp_path: Path) -> None:
    """A new platform is not accepted before `samples/platforms/<module>.py` shows what it is for."""
    assert without_sample(REGISTRY) == []
    copy = tmp_path / "platforms"
    shutil.copytree(REGISTRY, copy)
    (copy / "kueue.py").write_text("PLATFORM = None\n")
    assert without_sample(copy) == ["kueue"]


def test_the_registry_is_the_folder() -> None:
    """`platforms()` finds just the modules of the folder, each by the name of its module."""
    assert sorted(haversack.platforms.platforms()) == modules(REGISTRY)


@pytest.fixture(scope="module", params=modules(REGISTRY))
def declared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The sample of a platform, parsed and locked."""
    folder = tmp_path_factory.mktemp(f"platform-{request.param}")
    (folder / "site").mkdir()
    brought = importlib.import_module(f"tests.contract.samples.platforms.{request.param}")
    platform = haversack.platforms.platforms()[request.param]
    return declare(platform, brought.sample(folder / "site"), outside(folder / "store"))


class TestPlatforms(PlatformContract):
    """The contract, for each module of the registry."""
