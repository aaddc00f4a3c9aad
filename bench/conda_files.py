"""Conda packages for the benchmarks: random bytes, packed as conda-build packs them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard


def make_package(channel: Path, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Write ``channel/linux-64/<name>-1.0-0.conda`` and return its record, with ``fn``."""
    rows = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        for path, data in sorted(files.items())
    ]
    index = {
        "build": "0", "build_number": 0, "depends": [], "license": "MIT", "name": name, "subdir": "linux-64",
        "timestamp": 1_700_000_000_000, "version": "1.0",
    }  # fmt: skip
    info = {
        "info/about.json": b"{}",
        "info/files": "".join(f"{path}\n" for path in sorted(files)).encode(),
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths": rows, "paths_version": 1}).encode(),
    }
    stem = f"{name}-1.0-0"
    path = channel / "linux-64" / f"{stem}.conda"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", _packed(files)),
            (f"info-{stem}.tar.zst", _packed(info)),
        ):
            archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), data)
    data = path.read_bytes()
    sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    return {**index, **sums, "size": len(data), "fn": path.name}


def _packed(members: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in sorted(members.items()):
            head = tarfile.TarInfo(name)
            head.size, head.mode = len(data), 0o644
            tar.addfile(head, io.BytesIO(data))
    return zstandard.ZstdCompressor(level=3).compress(raw.getvalue())
