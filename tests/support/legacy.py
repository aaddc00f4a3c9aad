"""Environments that exist only as a folder, made as people make them: with uv, with rattler, by hand."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from uv import find_uv_bin

from tests.support.stack import GLIBC, SUBDIR, real_stack
from tests.support.wheels import make_wheel

MODULE = """\
import sys
def main():
    print(sys.prefix)
"""


def make_venv(folder: Path, wheels: Path, python: Path) -> Path:
    """A virtual environment with the project ``tool`` in it, whose script ``tool`` prints where it is."""
    wheel = make_wheel(
        wheels, "tool", "1.0", modules={"tool/__init__.py": MODULE}, entry_points={"tool": "tool:main"}
    )
    uv: list[str | Path] = [find_uv_bin(), "--quiet", "--offline", "--no-config"]
    subprocess.run([*uv, "venv", "--python", python, folder], check=True)
    argv = [*uv, "pip", "install", "--no-index", "--link-mode", "copy", "--python", folder, wheel]
    subprocess.run(argv, check=True)
    return folder


def make_conda_env(folder: Path, work: Path, specs: tuple[str, ...] = ("python", "tqdm", "where")) -> Path:
    """A conda environment of the real stack, installed by rattler; its package cache is in ``work``."""
    from rattler import (
        BuildString,
        Channel,
        GenericVirtualPackage,
        PackageName,
        SparseRepoData,
        Subdir,
        Version,
        solve_with_sparse_repodata,
    )
    from rattler.config import Config
    from rattler.install import install

    channel = real_stack(work / "channel")
    told = {"__unix": "0", "__linux": "5.10", "__glibc": GLIBC}
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in told.items()
    ]
    sources = [
        SparseRepoData(Channel(f"{channel.as_uri()}/"), subdir, channel / subdir / "repodata.json")
        for subdir in (SUBDIR, "noarch")
    ]

    async def make() -> None:
        records = await solve_with_sparse_repodata(list(specs), sources, virtual_packages=virtual)
        await install(
            records,
            target_prefix=folder,
            cache_dir=work / "cache",
            platform=Subdir(SUBDIR),
            config=Config.from_toml("allow-hard-links = false"),
            show_progress=False,
        )

    asyncio.run(make())
    # What conda writes and rattler does not.
    (folder / "conda-meta" / "history").touch()
    return folder
