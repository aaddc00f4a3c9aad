"""Debian packages and editor extensions, small and real."""

from __future__ import annotations

import json
import subprocess
import tempfile
import zipfile
from pathlib import Path


def make_deb(
    path: Path, name: str, version: str, architecture: str = "amd64", *, note: str = "", packing: str = "xz"
) -> Path:
    """A package that dpkg-deb built."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN").chmod(0o755)
        fields = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        told = f"{fields}Maintainer: Ada <ada@example.org>\nDescription: a tool\n {note or 'plain'}\n"
        (root / "DEBIAN" / "control").write_text(told)
        argv = ["dpkg-deb", "--root-owner-group", f"-Z{packing}", "--uniform-compression"]
        subprocess.run([*argv, "--build", root, path], check=True, capture_output=True)
    return path


def make_vsix(path: Path, publisher: str, name: str, version: str, platform: str = "") -> Path:
    """An extension as vsce lays one out."""
    target = f' TargetPlatform="{platform}"' if platform else ""
    identity = (
        f'<Identity Language="en-US" Id="{name}" Version="{version}" Publisher="{publisher}"{target} />'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "extension.vsixmanifest", f"<PackageManifest><Metadata>{identity}</Metadata></PackageManifest>"
        )
        told = {"publisher": publisher, "name": name, "version": version}
        archive.writestr("extension/package.json", json.dumps(told))
    return path
