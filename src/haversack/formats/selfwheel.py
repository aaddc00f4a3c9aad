"""haversack as a wheel, made from its own files: the tool travels as an environment of its own bundle.

Whoever runs haversack may have it from a wheel, from a checkout, or from an archive; what crosses must be
one wheel with one digest all the same.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from types import MappingProxyType

from packaging.utils import canonicalize_name
from packaging.version import Version

NOTHING: Mapping[str, bytes] = MappingProxyType({})

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip file can say
_MODE = stat.S_IFREG | 0o644
_WHEEL = b"Wheel-Version: 1.0\nGenerator: haversack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build(
    metadata: str, entry_points: str, files: Mapping[str, bytes], licenses: Mapping[str, bytes] = NOTHING
) -> tuple[str, bytes]:
    """File name and bytes of the ``py3-none-any`` wheel of some files, the same on every machine.

    ``metadata`` and ``entry_points`` are the texts of ``METADATA`` and ``entry_points.txt``, ``files`` maps
    paths in the wheel to contents, ``licenses`` those below ``.dist-info/licenses``.  Raises
    :class:`ValueError` when the metadata names no project or version.
    """
    headers = email.parser.HeaderParser().parsestr(metadata)
    if not headers["Name"] or not headers["Version"]:
        raise ValueError("the metadata names no project or no version")
    # The binary distribution format wants the normalised name with underscores in a file name.
    name = canonicalize_name(headers["Name"], validate=True).replace("-", "_")
    stem = f"{name}-{Version(headers['Version'])}"
    info = f"{stem}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": metadata.encode("utf-8"),
        f"{info}/WHEEL": _WHEEL,
        **{f"{info}/licenses/{path}": data for path, data in licenses.items()},
    }
    if entry_points:
        contents[f"{info}/entry_points.txt"] = entry_points.encode("utf-8")
    # RECORD last, as the format recommends, and .dist-info after everything else.
    ordered = sorted(contents, key=lambda path: (path.startswith(f"{info}/"), path))
    record = io.StringIO(newline="")
    writer = csv.writer(record, lineterminator="\n")
    for path in ordered:
        digest = base64.urlsafe_b64encode(hashlib.sha256(contents[path]).digest()).decode("ascii")
        writer.writerow((path, f"sha256={digest.rstrip('=')}", len(contents[path])))
    writer.writerow((f"{info}/RECORD", "", ""))
    contents[f"{info}/RECORD"] = record.getvalue().encode("utf-8")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as wheel:
        for path in (*ordered, f"{info}/RECORD"):
            member = zipfile.ZipInfo(path, _EPOCH)
            member.create_system = 3  # Unix, wherever this runs: without it the mode means nothing
            member.external_attr = _MODE << 16
            # Stored: what deflate makes of the same bytes depends on the zlib of the machine.
            member.compress_type = zipfile.ZIP_STORED
            wheel.writestr(member, contents[path])
    return f"{stem}-py3-none-any.whl", archive.getvalue()


def own_wheel(
    package: Traversable, metadata: str, entry_points: str, licenses: Mapping[str, bytes] = NOTHING
) -> tuple[str, bytes]:
    """File name and bytes of the wheel of one package folder.

    The caller knows the distribution: ``package`` is ``importlib.resources.files("haversack")``, the texts
    are what ``importlib.metadata.distribution("haversack").read_text`` gives, for editable installations
    too.  Bytecode and hidden files stay behind: they are not of the package but of who works with it.
    Raises :class:`ValueError` for a package with compiled modules, which no ``any`` wheel may hold.
    """
    return build(metadata, entry_points, dict(_files(package, package.name)), licenses)


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _files(entry, f"{path}/{entry.name}")
        elif entry.name.endswith((".so", ".pyd", ".dylib")):
            raise ValueError(f"{path}/{entry.name} is compiled for one platform")
        elif not entry.name.endswith((".pyc", ".pyo")):
            yield f"{path}/{entry.name}", entry.read_bytes()
