from __future__ import annotations

import pytest

from haversack.conda.checking import clobbered
from haversack.conda.layout import Meta, Placed


def meta(name: str, *paths: tuple[str, str]) -> Meta:
    """What ``conda-meta`` has of a package: for each file where it is, and where the package wanted it."""
    rows = tuple(Placed(path, wanted, "hardlink", name * 64, None) for path, wanted in paths)
    return Meta(f"{name}-1.0-0.json", name, "1.0", "0", rows)


@pytest.mark.parametrize(
    ("won", "lost", "said"),
    [
        ("share/x", "share/x/y", "b 1.0, and a 1.0 brings a file share/x; either may be missing"),
        ("share/x", "share/x/y/z", "b 1.0, and a 1.0 brings a file share/x; either may be missing"),
        ("share/x/y", "share/x", "is a folder of a 1.0; b 1.0 brings a file of that name"),
        ("share/x/y/z", "share/x", "is a folder of a 1.0; b 1.0 brings a file of that name"),
        ("share/x", "share/x", "is that of a 1.0; b 1.0 brings another one"),
    ],
)
def test_packages_that_want_one_place_are_told(won: str, lost: str, said: str) -> None:
    """Both are named, be it a file of both or a file of one where the other has a folder, as rattler records it."""
    metas = [meta("a", (won, won), ("share/a", "share/a")), meta("b", (f"__clobbers__/b/{lost}", lost))]
    (finding,) = clobbered(metas)
    assert (finding.code, finding.subject, finding.blocking) == ("conda-clobber", lost, False)
    assert finding.message.endswith(said)


def test_what_nobody_else_wants_is_not_told() -> None:
    """A file that was put aside, and whose place nobody took, is no fight."""
    assert list(clobbered([meta("a", ("share/xy", "share/xy")), meta("b", ("aside/x", "share/x"))])) == []
