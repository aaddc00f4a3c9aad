"""A git repository at a tag, with history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.testing.contracts import Sample
from tests.support.repository import Repository

_DECLARATION = """\
[site]
name = "sample"
[project.fraud]
git = "file://{folder}/repository"
rev = "v1"
"""


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample; its repository stays where it is."""
    repository = Repository(folder / "repository")
    repository.commit({"analysis.py": "print('one')\n"})
    repository.commit({"analysis.py": "print('two')\n"})
    repository.git("tag", "-m", "the first", "v1")
    (folder / "haversack.toml").write_text(_DECLARATION.format(folder=folder))
    yield Sample(folder / "haversack.toml", "fraud", b"PACK" + bytes(28), _spoil)


def _spoil(prefix: Path) -> None:
    (prefix / "fraud" / "analysis.py").write_text("print('altered')\n")
