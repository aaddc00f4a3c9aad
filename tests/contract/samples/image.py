"""Two images from a layout on disk: one of two platforms with Python in it, and one that shares a layer with it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.testing.contracts import Sample
from tests.support.registry import Layout, digest_of, tarred

_DECLARATION = """\
[site]
name = "sample"
[[image]]
ref = "oci:layout:app"
as = "registry.example.org/team/app:1"
requires = ["python3"]
[[image]]
ref = "oci:layout:tool"
as = "registry.example.org/team/tool:1"
platforms = ["linux/amd64"]
"""
_BASE: dict[str, bytes | str] = {"usr/bin/python3.11": b"\x7fELF", "usr/bin/python3": "python3.11"}


@contextmanager
def sample(folder: Path) -> Iterator[Sample]:
    """The sample, whose layout stays where it is."""
    layout = Layout(folder / "layout")
    layout.image("app", _BASE, ("linux/amd64", "linux/arm64/v8"))
    own = gzip.compress(tarred({"usr/bin/tool": b"tool"}), mtime=0)
    layout.name("tool", layout.manifest("linux/amd64", [{"etc/shared": b"shared by all of app"}, own]))
    (folder / "haversack.toml").write_text(_DECLARATION)
    forged = gzip.compress(tarred({"usr/bin/tool": b"evil"}), mtime=0)
    needed = f"layer-{digest_of(own)[7:19]}"
    yield Sample(folder / "haversack.toml", needed, forged, _spoil)


def _spoil(prefix: Path) -> None:
    layer = max((prefix / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = layer.read_bytes()
    # The file may be one with the store's.
    layer.unlink()
    layer.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
