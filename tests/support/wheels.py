"""Small real wheels and source distributions, the same bytes every time.

``make_wheel`` and ``make_sdist`` write files that pip and uv install and build.  A source distribution
brings its own build backend, of the standard library alone, so that building it needs nothing from an
index unless the test asks for build requirements.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from packaging.tags import parse_tag

CorruptRecord = Literal["hash", "missing", "extra", "absent"]
"""What is wrong with RECORD: the ``hash`` of a module, a line whose file is ``missing`` from the archive,
an ``extra`` file without a line, or RECORD itself is ``absent``."""

# The backend zips the tree that make_sdist laid down in ``wheel/``: what it builds is what make_wheel
# would have written, so a test can compare the two.
_BACKEND = '''\
"""An in-tree PEP 517 backend that needs nothing but Python."""
import os
import zipfile
{imports}
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wheel")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    {failure}
    with open(os.path.join(ROOT, "ORDER")) as file:
        names = file.read().splitlines()
    with zipfile.ZipFile(os.path.join(wheel_directory, {filename!r}), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            with open(os.path.join(ROOT, "tree", name), "rb") as file:
                archive.writestr(member, file.read())
    return {filename!r}
'''


def make_wheel(
    dest_dir: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    modules: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
    requires_python: str | None = None,
    entry_points: Mapping[str, str] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    corrupt_record: CorruptRecord | None = None,
) -> Path:
    """Write ``<name>-<version>-<tag>.whl`` into ``dest_dir`` (made if absent) and return its path.

    ``requires`` are requirement strings, ``extras`` the names their markers may use.  ``modules`` maps
    paths to source text; without it there is one package with ``__version__``.  ``entry_points`` maps
    console scripts to ``module:function``.  ``extra_files`` are archive members as they stand, also such
    as ``demo-1.0.data/scripts/tool`` or ``../outside``; they are listed in RECORD.  Equal arguments give
    equal bytes.
    """
    files = _wheel_files(
        name, version, requires, extras, modules, tag, requires_python, entry_points, extra_files or {}
    )
    members = _with_record(files, f"{_escaped(name)}-{version}.dist-info/RECORD", corrupt_record)
    path = dest_dir / _wheel_name(name, version, tag)
    dest_dir.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member_name, data in members.items():
            # Clocks and umasks would make two equal wheels differ.
            member = zipfile.ZipInfo(member_name, (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return path


def make_sdist(
    dest_dir: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    build_requires: Sequence[str] = (),
    backend_imports: Sequence[str] = (),
    modules: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
    requires_python: str | None = None,
    fails: bool = False,
) -> Path:
    """Write ``<name>-<version>.tar.gz`` into ``dest_dir`` (made if absent) and return its path.

    It builds the wheel that :func:`make_wheel` writes for the same ``requires``, ``modules``, ``tag`` and
    ``requires_python``.  ``build_requires`` goes into ``[build-system] requires``; ``backend_imports`` are
    modules the backend imports, to prove that those requirements were installed.  With ``fails`` the build
    raises.  Equal arguments give equal bytes.
    """
    files = _wheel_files(name, version, requires, (), modules, tag, requires_python, None, {})
    stem = f"{_escaped(name)}-{version}"
    tree = _with_record(files, f"{stem}.dist-info/RECORD", None)
    backend = _BACKEND.format(
        imports="".join(f"import {module}\n" for module in backend_imports),
        failure='raise RuntimeError("this source distribution does not build")' if fails else "",
        filename=_wheel_name(name, version, tag),
    )
    project = f'[build-system]\nrequires = {list(build_requires)!r}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    members = {
        "PKG-INFO": files[f"{stem}.dist-info/METADATA"],
        "backend.py": backend.encode(),
        "pyproject.toml": project.encode(),
        "wheel/ORDER": "".join(f"{member}\n" for member in tree).encode(),
        **{f"wheel/tree/{member}": data for member, data in tree.items()},
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(f"{stem}/{member}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path = dest_dir / f"{stem}.tar.gz"
    dest_dir.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw.getvalue(), mtime=0))
    return path


def _escaped(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _wheel_name(name: str, version: str, tag: str) -> str:
    return f"{_escaped(name)}-{version}-{tag}.whl"


def _wheel_files(
    name: str,
    version: str,
    requires: Sequence[str],
    extras: Sequence[str],
    modules: Mapping[str, str] | None,
    tag: str,
    requires_python: str | None,
    entry_points: Mapping[str, str] | None,
    extra_files: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Everything a wheel holds but RECORD."""
    if modules is None:
        modules = {f"{_escaped(name)}/__init__.py": f'__version__ = "{version}"\n'}
    info = f"{_escaped(name)}-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        "Summary: A package for tests",
        *([f"Requires-Python: {requires_python}"] if requires_python else []),
        *(f"Provides-Extra: {extra}" for extra in extras),
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    wheel = [
        "Wheel-Version: 1.0",
        "Generator: haversack-tests",
        f"Root-Is-Purelib: {str(tag.endswith('-any')).lower()}",
        *sorted(f"Tag: {one}" for one in parse_tag(tag)),
    ]
    files = {path: source.encode() for path, source in modules.items()}
    files.update(extra_files)
    files[f"{info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    files[f"{info}/WHEEL"] = ("\n".join(wheel) + "\n").encode()
    if entry_points:
        scripts = "".join(f"{script} = {target}\n" for script, target in entry_points.items())
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    return files


def _with_record(
    files: Mapping[str, bytes], record_path: str, corrupt: CorruptRecord | None
) -> dict[str, bytes]:
    """The files and a RECORD of them, sound or corrupt as told."""
    sums = {
        path: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        for path, data in files.items()
    }
    if corrupt == "hash":
        sums[next(iter(files))] = "A" * 43
    lines = [f"{path},sha256={sums[path]},{len(data)}" for path, data in files.items()]
    members = dict(files)
    if corrupt == "missing":
        lines.append(f"not_there.py,sha256={'A' * 43},1")
    if corrupt == "extra":
        members["unlisted.py"] = b"raise SystemExit('nobody listed me')\n"
    if corrupt != "absent":
        members[record_path] = ("\n".join([*lines, f"{record_path},,"]) + "\n").encode()
    return members
