"""Standing at the gate: the command line in this process, bundles bent by hand, and a store that must not change.

``run`` is the real entry point with real files; what haversack does not turn into one of its own errors
leaves it as the exception it is, so that no traceback can hide in an exit code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from haversack.cli import main
from haversack.errors import HaversackError
from haversack.formats.canonical import canonical


@dataclass(frozen=True)
class Outcome:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The JSON it printed."""
        return json.loads(self.out)


class _Out(io.TextIOWrapper):
    """Standard output as a strict terminal would have it: UTF-8, and nothing that is not."""

    def __init__(self) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding="utf-8", errors="strict", write_through=True)

    def text(self) -> str:
        self.flush()
        return self.raw_bytes.getvalue().decode()


def run(*words: str | Path, store: Path, stdin: bytes = b"") -> Outcome:
    """Run a command in this process over a store."""
    out, err = _Out(), _Out()
    argv = ["haversack", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.dict(os.environ, {"HAVERSACK_STORE": str(store)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Outcome(code, out.text(), err.text())


def refused(outcome: Outcome, error: type[HaversackError], *words: str) -> None:
    """Hold an outcome to be a clear refusal: the class's exit code, all the words, a place and a remedy."""
    assert outcome.code == error.exit_code, (outcome.code, outcome.out, outcome.err)
    assert "error: " in outcome.err
    assert "remedy: " in outcome.err, outcome.err
    for word in words:
        assert word in outcome.err, (word, outcome.err)


def state(store: Path) -> dict[str, bytes]:
    """Every file of a store and its bytes, but for the lock and the staging folder that an attempt may touch."""
    found = {}
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and name != "haversack/lock" and not name.endswith(".lock"):
            found[name] = path.read_bytes()
    return found


@contextlib.contextmanager
def unchanged(store: Path) -> Iterator[None]:
    """Hold a store to be the same, byte by byte, after as before."""
    before = state(store)
    yield
    assert state(store) == before


def flip(path: Path, offset: int | None = None) -> None:
    """Flip one bit of a file, in its middle unless told where."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset is None else offset] ^= 1
    replace(path, bytes(data))


def replace(path: Path, data: bytes) -> None:
    """Give a file other bytes under a new inode, so that no hard link shares them."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def copied(bundle: Path, to: Path) -> Path:
    """A copy of a bundle's folder to bend."""
    shutil.copytree(bundle, to)
    return to


def volumes(bundle: Path) -> list[Path]:
    """The volumes of a bundle, in order."""
    return sorted(path for path in bundle.iterdir() if path.is_dir())


def manifest(bundle: Path) -> dict[str, Any]:
    """The manifest as plain JSON."""
    value: dict[str, Any] = json.loads((volumes(bundle)[0] / "bundle.json").read_bytes())
    return value


def forged(bundle: Path, to: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy whose manifest says something else, with check sums that agree with it."""
    copied(bundle, to)
    value = manifest(bundle)
    edit(value)
    return sealed(to, canonical(value))


def sealed(bundle: Path, data: bytes) -> Path:
    """Put ``data`` in the place of every manifest of a bundle and mend its line in ``SHA256SUMS``."""
    for volume in volumes(bundle):
        replace(volume / "bundle.json", data)
        reseal(volume)
    return bundle


def reseal(volume: Path) -> None:
    """Write a volume's ``SHA256SUMS`` anew over whatever lies in it."""
    files = sorted(p for p in volume.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(volume).as_posix()}\n" for p in files
    ]
    replace(volume / "SHA256SUMS", "".join(lines).encode())


def ordered(bundle: Path) -> list[tuple[str, bytes]]:
    """The files of a bundle as a stream has them: volume by volume, manifest first, pieces last."""
    found = []
    order = {"bundle.json": 0, "VOLUME": 1, "SHA256SUMS": 2}
    pieces = [
        f"parts/{p['blob'][7:]}.{p['offset']:015d}" if "blob" in p else f"blobs/sha256/{p['digest'][7:]}"
        for v in manifest(bundle)["volumes"]
        for p in v["pieces"]
    ]
    for volume in volumes(bundle):
        files = [p.relative_to(volume).as_posix() for p in volume.rglob("*") if p.is_file()]
        files.sort(key=lambda name: (order.get(name, 3), pieces.index(name) if name in pieces else -1, name))
        found += [(f"{volume.name}/{name}", (volume / name).read_bytes()) for name in files]
    return found


def tarred(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of some members; one that is a ``TarInfo`` is written as it is."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=kind) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(name, tarfile.TarInfo):
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if data else None)
    return raw.getvalue()
