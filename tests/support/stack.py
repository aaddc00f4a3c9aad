"""A small real conda stack: this machine's Python as a relocatable package, and packages on top of it.

::

    channel = real_stack(folder)               # a channel; its packages are those of ``STACK``
    python = python_package(folder)            # only the interpreter, folder/<subdir>/python-3.11.x-…conda

What takes long is made once a process.
"""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rattler_build import assemble_package

from tests.support.conda import PLACEHOLDER, Content, Mode, Package, make_conda, record_of, write_channel

SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[platform.machine()]
"""The subdir of the machine that runs the tests."""
SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"
GLIBC = platform.libc_ver()[1]

# What nobody imports who only runs programs, and what of a stdlib belongs to the machine and not to Python.
_LEFT_OUT = {
    "EXTERNALLY-MANAGED",
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
_WHERE = """
#include <stdio.h>
static const char prefix[] = "%s";
int main(void) { puts(prefix); return 0; }
"""


def python_package(folder: Path) -> Package:
    """CPython as ``python`` for this machine, from what the interpreter that runs the tests was made of."""
    return _into(folder, _python())


def real_stack(folder: Path) -> Path:
    """Write a channel whose packages can be solved, installed and run on this machine; returns ``folder``.

    ``python``; ``packaging`` and ``tqdm`` (``noarch: python``, the latter with an entry point); ``where``
    (a compiled program and a script that tell their prefix); ``hotfixed`` (its own metadata asks for what does
    not exist, the channel for ``packaging``); ``clobber-a`` and ``clobber-b`` (one path, other bytes; the
    latter a ``.tar.bz2``); ``yanked`` (1.0 stands, 2.0 was removed); ``needs-cuda``; ``linked`` (a
    post-link script); ``built`` (``noarch: generic``, by rattler-build); ``everything`` depends on all that
    goes without a GPU.
    """
    packages = [_into(folder, package) for package in _packages()]
    yanked = [package for package in packages if package.filename.startswith("yanked-2.0")]

    def patch(record: dict[str, Any]) -> dict[str, Any]:
        return {**record, "depends": ["packaging"]} if record["name"] == "hotfixed" else record

    return write_channel(folder, [p for p in packages if p not in yanked], patch=patch, removed=yanked)


def _into(folder: Path, package: Package) -> Package:
    place = folder / package.subdir / package.filename
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(package.path, place)
    return replace(package, path=place)


@functools.cache
def _workshop() -> Path:
    """A folder that lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="haversack-stack-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# The interpreter


@functools.cache
def _python() -> Package:
    files: dict[str, Content] = {}
    prefixed: dict[str, Mode] = {}
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base)}))
    for path in _stdlib(library):
        data = path.read_bytes()
        name = f"lib/python{SHORT}/{path.relative_to(library)}"
        if path.name.startswith("_sysconfigdata"):
            data = _moved(data, base)
            prefixed[name] = "text"
        files[name] = (_stripped(path) if path.suffix == ".so" else data, 0o644)
    files[f"bin/python{SHORT}"] = (_stripped(base / "bin" / f"python{SHORT}"), 0o755)
    for shared in sorted((base / "lib").glob(f"libpython{SHORT}.so*")):
        if not shared.is_symlink():
            files[f"lib/{shared.name}"] = (_stripped(shared), 0o755)
    files[f"lib/python{SHORT}/site-packages/README.txt"] = b"Packages go here.\n"
    # Debian's Python looks for packages only in dist-packages; a .pth there leads to where conda puts them.
    files["lib/python3/dist-packages/conda.pth"] = f"../../python{SHORT}/site-packages\n".encode()
    return make_conda(
        _workshop() / "python",
        "python",
        platform.python_version(),
        build="0_cpython",
        subdir=SUBDIR,
        files=files,
        links={"bin/python": f"python{SHORT}", "bin/python3": f"python{SHORT}"},
        prefixed=prefixed,
        depends=["__unix", f"__glibc >={GLIBC}"],
        license="Python-2.0",
    )


def _stdlib(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from _stdlib(path)
        elif path.is_file() and path.suffix != ".a":
            yield path


def _moved(text: bytes, base: Path) -> bytes:
    """A text with the build prefix in the place of the prefix of this Python; ``/usr`` only where it stands alone."""
    old, new = str(base).encode(), PLACEHOLDER.encode()
    return text.replace(b"'" + old + b"'", b"'" + new + b"'") if old == b"/usr" else text.replace(old, new)


def _stripped(path: Path) -> bytes:
    """A program or library without debug symbols, that looks for libraries beside itself.

    A RUNPATH into the prefix of this Python is replaced within its string table by one that is shorter.
    """
    target = _workshop() / "stripped"
    subprocess.run(["strip", "--strip-debug", "-o", target, path], check=True)
    data = target.read_bytes()
    old = f"{sys.base_prefix}/lib\0".encode()
    new = b"$ORIGIN/../..\0" if path.parent.name == "lib-dynload" else b"$ORIGIN/../lib\0"
    return data.replace(old, new.ljust(len(old), b"\0")) if len(new) <= len(old) else data


# What stands on it


@functools.cache
def _packages() -> tuple[Package, ...]:
    folder = _workshop() / "packages"
    made = [
        _python(),
        _installed(folder, "packaging"),
        _installed(folder, "tqdm"),
        _where(folder),
        make_conda(folder, "hotfixed", "1.0", noarch="generic", depends=["nowhere-to-be-found"]),
        _clobber(folder, "clobber-a", ".conda"),
        _clobber(folder, "clobber-b", ".tar.bz2"),
        make_conda(folder, "yanked", "1.0", noarch="generic", files={"share/yanked": b"1.0\n"}),
        make_conda(folder, "yanked", "2.0", noarch="generic", files={"share/yanked": b"2.0\n"}),
        make_conda(folder, "needs-cuda", "1.0", subdir=SUBDIR, depends=["__cuda >=12"]),
        _linked(folder),
        _built(folder),
    ]
    names = sorted({p.record["name"] for p in made} - {"needs-cuda"})
    return (*made, make_conda(folder, "everything", "1.0", noarch="generic", depends=names))


def _installed(folder: Path, name: str) -> Package:
    """A pure distribution of the environment that runs the tests, as a ``noarch: python`` package."""
    found = importlib.metadata.distribution(name)
    files: dict[str, Content] = {}
    for path in found.files or ():
        kept = path.parts[0] != ".." and path.suffix != ".pyc"
        if kept and path.name not in {"RECORD", "REQUESTED", "INSTALLER", "direct_url.json"}:
            files[f"site-packages/{path}"] = Path(str(path.locate())).read_bytes()
    info = next(path for path in files if path.endswith(".dist-info/METADATA")).removesuffix("METADATA")
    files[f"{info}INSTALLER"] = b"conda\n"
    entry_points = [f"{e.name} = {e.value}" for e in found.entry_points if e.group == "console_scripts"]
    return make_conda(
        folder,
        name,
        found.version,
        build="pyh0_0",
        noarch="python",
        files=files,
        entry_points=entry_points,
        depends=["python >=3.8"],
    )


def _where(folder: Path) -> Package:
    """A compiled program and a script, each of which prints the prefix that it was installed to."""
    program = _workshop() / "where"
    source = (_WHERE % PLACEHOLDER).encode()
    subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", program], input=source, check=True)
    script = f'#!/bin/sh\necho "{PLACEHOLDER}"\n'.encode()
    return make_conda(
        folder,
        "where",
        "1.0",
        build="h1_0",
        subdir=SUBDIR,
        files={
            "bin/where": (program.read_bytes(), 0o755),
            "bin/where-text": (script, 0o755),
            "etc/where.conf": f"prefix={PLACEHOLDER}\n".encode(),
        },
        links={"bin/where-link": "where"},
        prefixed={"bin/where": "binary", "bin/where-text": "text", "etc/where.conf": "text"},
        depends=["__unix"],
    )


def _clobber(folder: Path, name: str, suffix: str) -> Package:
    files: dict[str, Content] = {"share/clobbered": f"by {name}\n".encode(), f"share/{name}": b"mine\n"}
    return make_conda(folder, name, "1.0", noarch="generic", files=files, suffix=suffix)


def _linked(folder: Path) -> Package:
    script = b'#!/bin/sh\necho "post-link ran" > "$PREFIX/share/post-link-ran"\n'
    files: dict[str, Content] = {"bin/.linked-post-link.sh": (script, 0o755), "share/linked": b"linked\n"}
    return make_conda(folder, "linked", "1.0", subdir=SUBDIR, files=files, depends=["__unix"])


def _built(folder: Path) -> Package:
    """A package that rattler-build made, not we."""
    staged = _workshop() / "staged"
    (staged / "share").mkdir(parents=True)
    (staged / "share" / "built.txt").write_text("built by rattler-build\n")
    (staged / "share" / "built-link.txt").symlink_to("built.txt")
    made = assemble_package(
        "built",
        "1.0",
        "noarch",
        "h0_0",
        folder / "noarch",
        files_dir=staged,
        license="MIT",
        noarch="generic",
        timestamp=datetime.fromtimestamp(1_700_000_000, UTC),
    )
    index = {
        "build": "h0_0",
        "build_number": 0,
        "depends": [],
        "license": "MIT",
        "name": "built",
        "noarch": "generic",
        "subdir": "noarch",
        "timestamp": 1_700_000_000_000,
        "version": "1.0",
    }
    return Package(made.path, record_of(made.path, index))
