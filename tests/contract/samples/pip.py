"""An environment of two wheels from an index on loopback, the one requiring the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.ports.machine import probe
from haversack.testing.contracts import Sample
from tests.support.index import Index
from tests.support.wheels import make_wheel

_DECLARATION = """\
[site]
name = "sample"
[index.here]
url = "{url}"
default = true
[target.here]
platform = "{platform}"
glibc = "{glibc}"
python = "{python}"
[env.lab]
kind = "pip"
requirements = ["requirements.txt"]
targets = ["here"]
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample, while its index is up."""
    here = probe()
    make_wheel(
        folder / "wheels",
        "alpha",
        "1.0",
        modules={"alpha/__init__.py": "import beta\n"},
        requires=["beta>=1"],
    )
    make_wheel(folder / "wheels", "beta", "1.0")
    make_wheel(folder / "wheels", "beta", "1.1")
    forged = make_wheel(
        folder / "forged", "beta", "1.1", modules={"beta/__init__.py": "forged = True\n"}
    ).read_bytes()
    (folder / "requirements.txt").write_text("alpha\n")
    with Index(folder / "wheels", json_pages=True) as index:
        told = _DECLARATION.format(
            url=index.url, platform=here.platform, glibc=here.glibc, python=here.python_short
        )
        (folder / "haversack.toml").write_text(told)
        yield Sample(folder / "haversack.toml", "beta", forged, _spoil)


def _spoil(prefix: Path) -> None:
    (module,) = prefix.glob("lib/python3.*/site-packages/beta/__init__.py")
    module.unlink()
    module.write_text("raise SystemExit('altered')\n")
