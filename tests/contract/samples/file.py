"""A Debian package and a plain file, as a site declares them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.testing.contracts import Sample
from tests.support.packages import make_deb

_DECLARATION = """\
[site]
name = "sample"
[[file]]
url = "file://{folder}/tool_1.2_amd64.deb"
[[file]]
url = "notes.txt"
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample; its files stay where they are."""
    make_deb(folder / "tool_1.2_amd64.deb", "tool", "1.2")
    (folder / "notes.txt").write_text("read me\n")
    (folder / "haversack.toml").write_text(_DECLARATION.format(folder=folder))
    forged = make_deb(folder / "other.deb", "tool", "1.2", note="forged").read_bytes()
    yield Sample(folder / "haversack.toml", "tool_1.2_amd64.deb", forged, _spoil)


def _spoil(prefix: Path) -> None:
    (prefix / "notes.txt").write_text("altered\n")
