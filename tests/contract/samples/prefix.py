"""A virtual environment with a wheel that has a script, as somebody made it by hand."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.ports.machine import probe
from haversack.relocation import archive
from haversack.relocation.scan import scan
from haversack.testing.contracts import Sample
from tests.support.legacy import make_venv

_DECLARATION = """\
[site]
name = "sample"
[target.here]
platform = "{platform}"
glibc = "{glibc}"
python = "{python}"
[env.legacy]
kind = "prefix"
path = "{path}"
targets = ["here"]
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample; its folder stays where it is."""
    here = probe()
    root = make_venv(folder / "legacy", folder / "wheels", Path(sys.executable))
    other = make_venv(folder / "other", folder / "wheels", Path(sys.executable))
    (other / "forged").write_text("forged\n")
    forged = io.BytesIO()
    archive.write(scan(other), forged)
    told = _DECLARATION.format(platform=here.platform, glibc=here.glibc, python=here.python_short, path=root)
    (folder / "haversack.toml").write_text(told)
    yield Sample(folder / "haversack.toml", "legacy", forged.getvalue(), _spoil)


def _spoil(prefix: Path) -> None:
    (module,) = prefix.glob("lib/python3.*/site-packages/tool/__init__.py")
    module.write_text("raise SystemExit('altered')\n")
