"""Reading wheels: sound ones pass whole, and every way of lying is noticed."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installer.sources import WheelFile

from haversack.formats import wheel, zipped
from haversack.model.finding import Finding

NAME = "demo-1.0-py3-none-any.whl"
INFO = "demo-1.0.dist-info"
METADATA = b"""\
Metadata-Version: 2.4
Name: Demo
Version: 1.0
Summary: A wheel
License-Expression: MIT
Requires-Python: >=3.9
Provides-Extra: fast
Requires-Dist: numpy>=1.20
Requires-Dist: numba;
  extra == "fast"

The description.
Name: not a header any more
"""
WHEEL = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
FILES: dict[str, bytes] = {
    "demo/__init__.py": b"VALUE = 1\n",
    "demo/data/table.csv": b"a,b\n" * 100,
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": WHEEL,
}
Member = tuple[zipfile.ZipInfo, bytes]


def stated(data: bytes, algorithm: str = "sha256") -> str:
    """A digest as RECORD says it."""
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm}={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def record_of(files: Mapping[str, bytes]) -> bytes:
    """The RECORD of some files."""
    rows = [
        f'"{path}",{stated(data)},{len(data)}\n' for path, data in files.items() if not path.endswith("/")
    ]
    return "".join([*rows, f"{INFO}/RECORD,,\n"]).encode()


def pack(
    files: Mapping[str, bytes] = FILES,
    *,
    record: bytes | None = None,
    method: int = zipfile.ZIP_DEFLATED,
    modes: Mapping[str, int] | None = None,
) -> bytes:
    """A wheel of some files; ``record`` instead of a sound RECORD (empty: none), ``modes`` by path."""
    every = {**files, f"{INFO}/RECORD": record_of(files) if record is None else record}
    if record == b"":
        del every[f"{INFO}/RECORD"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for path, data in every.items():
            member = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            member.compress_type = method
            member.external_attr = (modes or {}).get(path, stat.S_IFREG | 0o644) << 16
            target.writestr(member, data)
    return archive.getvalue()


def look(data: bytes, filename: str = NAME) -> tuple[dict[str, Any], list[Finding]]:
    """Facts and findings of a wheel's bytes."""
    facts, findings = wheel.inspect(io.BytesIO(data), filename)
    return dict(facts), findings


def found(data: bytes, filename: str = NAME) -> set[tuple[str, str]]:
    """Code and member of each blocking finding."""
    _, findings = look(data, filename)
    return {(f.code, f.subject.removeprefix(filename).removeprefix(": ")) for f in findings if f.blocking}


def patched(data: bytes, path: str, *, central: Mapping[int, bytes], local: Mapping[int, bytes]) -> bytes:
    """A wheel with bytes of a member's two headers overwritten, at offsets from where each begins."""
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        place, here = archive.start_dir, archive.getinfo(path).header_offset
    while True:
        lengths = struct.unpack_from("<3H", changed, place + 28)
        if changed[place + 46 : place + 46 + lengths[0]] == path.encode():
            break
        place += 46 + sum(lengths)
    for begin, edits in ((place, central), (here, local)):
        for offset, new in edits.items():
            changed[begin + offset : begin + offset + len(new)] = new
    return bytes(changed)


def sizes(
    packed: int | None = None, unpacked: int | None = None, crc: int | None = None
) -> dict[str, dict[int, bytes]]:
    """Edits of :func:`patched` that make both headers say other sizes or another check sum."""
    words = {0: crc, 4: packed, 8: unpacked}
    edits = {offset: struct.pack("<L", word) for offset, word in words.items() if word is not None}
    return {
        "central": {16 + offset: word for offset, word in edits.items()},
        "local": {14 + offset: word for offset, word in edits.items()},
    }


def inserted(data: bytes, place: int, extra: bytes) -> bytes:
    """A wheel with bytes put in, and its directory told where everything stands now."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        begin, members = archive.start_dir, archive.infolist()
    grown = bytearray(data[:place] + extra + data[place:])
    at = begin + len(extra)
    for member in members:
        if member.header_offset >= place:
            struct.pack_into("<L", grown, at + 42, member.header_offset + len(extra))
        at += 46 + len(member.orig_filename.encode()) + len(member.extra)
    struct.pack_into("<L", grown, len(grown) - 6, begin + len(extra))
    return bytes(grown)


def test_a_sound_wheel_gives_all_its_facts_and_no_finding() -> None:
    """Everything a view prints is read from the bytes, and a wheel as it should be is not complained about."""
    files = {**FILES, f"{INFO}/entry_points.txt": b"[console_scripts]\nDemo = demo:main\n\n[other]\na=b:c\n"}
    facts, findings = look(pack(files))
    assert findings == []
    assert facts == {
        "entry_points": ["Demo"],
        "license": "MIT",
        "metadata_sha256": hashlib.sha256(METADATA).hexdigest(),
        "modules": ["demo"],
        "provides_extra": ["fast"],
        "requires_dist": ["numpy>=1.20", 'numba; extra == "fast"'],
        "requires_python": ">=3.9",
        "summary": "A wheel",
        "tags": ["py3-none-any"],
        "unpacked": sum(map(len, files.values())) + len(record_of(files)),
    }


def test_a_sound_wheel_satisfies_another_reader_too(tmp_path: Path) -> None:
    """What these tests call sound is sound for the installer library as well."""
    (tmp_path / NAME).write_bytes(pack())
    with WheelFile.open(tmp_path / NAME) as source:
        source.validate_record()


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("Demo_Two-1.0.0-py3-none-any.whl", ("demo-two", "1.0.0", {"py3-none-any"})),
        ("torch-2.1+cpu-1a-py2.py3-none-any.whl", ("torch", "2.1+cpu", {"py2-none-any", "py3-none-any"})),
    ],
)
def test_a_file_name_says_name_version_and_tags(filename: str, expected: tuple[str, str, set[str]]) -> None:
    """Names come normalised and tag sets expanded, build tags and local versions included."""
    name, version, tags = wheel.check_filename(filename)
    assert (name, str(version), set(map(str, tags))) == expected


@pytest.mark.parametrize(
    "filename", ["demo.whl", "demo-1.0.tar.gz", "demo-x-py3-none-any.whl", "demo-1.0-py3-none-../any.whl", "demo-1.0-py3-none-any.whl\n", "demo-1.0\n-py3-none-any.whl"]
)  # fmt: skip
def test_a_file_name_that_is_no_wheel_name_is_refused(filename: str) -> None:
    """Neither a wrong form nor a path passes as a wheel's name, and the wheel is told off for it."""
    with pytest.raises(ValueError):
        wheel.check_filename(filename)
    assert [f.code for f in look(pack(), filename)[1]] == ["wheel-invalid"]


def test_modules_are_what_can_be_imported_at_the_top() -> None:
    """Packages, modules and extension modules count, from the library folders too; nothing else does."""
    paths = [
        *(
            "alpha/__init__.py",
            "alpha/inner/__init__.py",
            "beta.py",
            "_gamma.cpython-311-x86_64-linux-gnu.so",
        ),
        *("delta.abi3.so", "eps.cp311-win_amd64.pyd", "zeta/__init__.abi3.so"),
        *("demo-1.0.data/purelib/eta/__init__.py", "demo-1.0.data/platlib/theta.py"),
        *("namespace/part.py", "not-a-name.py", "__editable__.py", "libiota.so", "class.py", "kappa.pyi"),
        *("demo-1.0.data/scripts/lambda.py", "mu.libs/__init__.py", "demo.pth"),
    ]
    facts, findings = look(pack({**FILES, **dict.fromkeys(paths, b"")}))
    assert findings == []
    assert facts["modules"] == ["_gamma", "alpha", "beta", "delta", "demo", "eps", "eta", "theta", "zeta"]


def test_short_facts_stay_short() -> None:
    """A licence text in the licence field gives way to the classifier, and UNKNOWN to nothing."""
    lines = [*(b"Name: demo", b"Version: 1.0", b"Summary: UNKNOWN", b"License: " + b"word " * 100)]
    metadata = b"\n".join([*lines, b"Classifier: License :: OSI Approved :: BSD License", b""])
    facts, findings = look(pack({**FILES, f"{INFO}/METADATA": metadata}))
    assert findings == []
    assert (facts["license"], facts["summary"], facts["requires_python"]) == ("BSD License", None, None)


def test_metadata_in_another_encoding_is_read_as_far_as_it_goes() -> None:
    """An author's name in Latin-1 does not keep an old wheel out."""
    facts, findings = look(pack({**FILES, f"{INFO}/METADATA": b"Author: Jos\xe9\n" + METADATA}))
    assert findings == []
    assert facts["requires_dist"][0] == "numpy>=1.20"


# The archive


@pytest.mark.parametrize("data", [b"", b"x", b"not a zip" * 99, b"PK\x05\x06" + bytes(18)], ids=len)
def test_what_is_no_wheel_is_said_to_be_none(data: bytes) -> None:
    """Nothing, noise and an empty archive are findings, with facts that have all their keys."""
    facts, findings = look(data)
    assert {f.code for f in findings} == {"wheel-invalid"}
    assert facts.keys() == look(pack())[0].keys()


def test_a_wheel_cut_short_anywhere_is_noticed() -> None:
    """There is no length at which a truncated wheel passes."""
    data = pack()
    assert all(found(data[:length]) for length in range(len(data)))


def test_bytes_that_nobody_owns_are_noticed_wherever_they_are() -> None:
    """Before, between, behind the members and after the end: nothing can hide from one reader and not another."""
    data = pack()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        second, end = archive.infolist()[1].header_offset, archive.start_dir
    hidden = pack({"evil.py": b"import os"}, record=b"")[:40]
    assert ("wheel-invalid", "demo/__init__.py") in found(inserted(data, second, hidden))
    assert ("wheel-invalid", f"{INFO}/RECORD") in found(inserted(data, end, hidden))
    assert ("wheel-invalid", "") in found(inserted(data, 0, hidden))
    assert ("wheel-invalid", "") in found(hidden + data)
    assert ("wheel-invalid", "") in found(data + hidden)


def test_a_streamed_archive_with_data_descriptors_is_sound() -> None:
    """Wheels written to a pipe say their sizes behind each member, and that is no hidden byte."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**FILES, f"{INFO}/RECORD": record_of(FILES)}.items():
            archive.writestr(path, data)
    assert look(pipe.data)[1] == []


def test_a_comment_and_zip64_sizes_are_sound() -> None:
    """A wheel may have a comment, and sizes in the zip64 field."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.comment = b"made by hand"
        for path, data in {**FILES, f"{INFO}/RECORD": record_of(FILES)}.items():
            with target.open(path, "w", force_zip64=True) as member:
                member.write(data)
    assert look(archive.getvalue())[1] == []


@pytest.mark.parametrize("bit", [0x1, 0x20, 0x40])
def test_an_encrypted_member_is_noticed(bit: int) -> None:
    """A member that nobody can read without a password, or that is a patch, makes the wheel invalid."""
    flag = struct.pack("<H", bit)
    data = patched(pack(), "demo/__init__.py", central={8: flag}, local={6: flag})
    assert found(data) == {("wheel-invalid", "demo/__init__.py")}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_uv_does_not_read_is_noticed(method: int) -> None:
    """uv installs stored and deflated members; a wheel of others would fail inside."""
    data = pack({**FILES, "demo/x": b"x"}, method=method)
    assert ("wheel-invalid", "demo/x") in found(data)


def test_a_member_that_occurs_twice_is_noticed() -> None:
    """Of two members with one name, each reader takes another."""
    files = {**FILES, "demo/__inix__.py": b"VALUE = 2\n"}
    data = pack(files, method=zipfile.ZIP_STORED).replace(b"demo/__inix__.py", b"demo/__init__.py")
    assert ("wheel-invalid", "demo/__init__.py") in found(data)


def test_headers_that_disagree_are_noticed() -> None:
    """A name, a size or a check sum that stands otherwise in front of the member than in the directory."""
    data = pack()
    place = ("wheel-invalid", "demo/__init__.py")
    assert place in found(patched(data, place[1], central={}, local={30: b"E"}))
    assert place in found(patched(data, place[1], central={}, local=sizes(unpacked=1)["local"]))
    assert place in found(patched(data, place[1], central=sizes(crc=7)["central"], local={}))
    assert place in found(patched(data, place[1], central={42: struct.pack("<L", 9)}, local={}))


def test_damaged_contents_are_noticed() -> None:
    """A check sum that is wrong everywhere, a broken deflate stream, and fewer bytes than declared."""
    data, path = pack(), "demo/data/table.csv"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo(path)
    begin = member.header_offset + 30 + len(path)
    assert ("wheel-invalid", path) in found(patched(data, path, **sizes(crc=1)))
    assert ("wheel-invalid", path) in found(patched(data, path, **sizes(unpacked=500)))
    assert ("wheel-invalid", path) in found(data[:begin] + b"\xff" + data[begin + 1 :])
    assert ("wheel-invalid", path) in found(data[:begin] + b"\x03\x00" + data[begin + 2 :])


@pytest.mark.parametrize("offset", [2**32, 2**63, 2**64 - 1])
def test_offsets_beyond_the_file_are_noticed(offset: int, tmp_path: Path) -> None:
    """A directory may name any place, also one that no file has; nobody goes there."""
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**FILES, f"{INFO}/RECORD": record_of(FILES)}.items():
            archive.writestr(name, data)
        for member in archive.filelist[:2]:
            member.header_offset = offset
    with path.open("rb") as file:
        _, findings = wheel.inspect(file, NAME)
    assert {f.code for f in findings} == {"wheel-invalid"}


def test_an_end_record_that_points_before_the_file_is_noticed(tmp_path: Path) -> None:
    """A zip64 locator with no room for what it locates is a finding, not an error of the disk."""
    path = tmp_path / NAME
    path.write_bytes(struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + b"PK\x05\x06" + bytes(18))
    with path.open("rb") as file:
        _, findings = wheel.inspect(file, NAME)
    assert [(f.code, f.subject) for f in findings] == [("wheel-invalid", NAME)]


# The names


@pytest.mark.parametrize(
    "path",
    [
        *("../evil.py", "demo/../../evil.py", "..", "/etc/passwd", "C:/evil.py", "c:evil.py", "\\evil.py", "demo\\..\\x"),
        *("demo//x", "./demo/x", "demo/./x", "demo/\x1b[2Jx", "demo/a\nb", "demo/" + "x" * 256, "demo/" + "ü" * 128),
        *("demo-1.0.data/scripts/../../x", "../", "/"),
    ],
)  # fmt: skip
def test_a_name_that_leaves_its_folder_is_noticed(path: str) -> None:
    """Whatever is absolute, climbs, or cannot be one name on a disk is unsafe, and is shown harmlessly."""
    _, findings = look(pack({**FILES, path: b""}))
    unsafe = [f for f in findings if f.code == "path-unsafe"]
    assert len(unsafe) == 1
    assert unsafe[0].blocking
    assert unsafe[0].subject.isprintable()


@pytest.mark.parametrize(("path", "reason"), [("a/../b", "leaves"), ("/a", "absolute"), ("C:a", "absolute")])
def test_the_reason_is_told(path: str, reason: str) -> None:
    """A security officer reads whether a name climbs or is absolute."""
    (unsafe,) = look(pack({**FILES, path: b""}))[1]
    assert reason in unsafe.message


def test_a_name_with_a_null_byte_is_noticed() -> None:
    """zipfile would cut the name there and read another file than its neighbours."""
    data = pack({**FILES, "demo/xZ.py": b""}, method=zipfile.ZIP_STORED).replace(
        b"demo/xZ.py", b"demo/x\0.py"
    )
    assert any(code == "path-unsafe" for code, _ in found(data))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_member_that_is_no_file_is_noticed(kind: int) -> None:
    """Links lead out of the folder, and devices and pipes have no place in a wheel."""
    data = pack({**FILES, "demo/link": b"/etc/passwd"}, modes={"demo/link": kind | 0o777})
    assert found(data) == {("path-unsafe", "demo/link")}
    assert ("link" in look(data)[1][0].message) == (kind == stat.S_IFLNK)


def test_folders_are_sound_and_have_no_content() -> None:
    """Many wheels list their folders; one with bytes in it hides them."""
    modes = {"demo/": stat.S_IFDIR | 0o755}
    assert look(pack({"demo/": b"", **FILES}, modes=modes))[1] == []
    assert ("wheel-invalid", "demo/") in found(pack({"demo/": b"hidden", **FILES}, modes=modes))


@pytest.mark.parametrize("path", ["demo/aux.py", "demo/what?.txt", "demo/a:b", "demo/dot."])
def test_a_name_that_only_windows_refuses_blocks_only_there(path: str) -> None:
    """Linux has no quarrel with such a name, so a user of Linux is told and not stopped."""
    data = pack({**FILES, path: b""})
    assert [(f.code, f.blocking) for f in look(data)[1]] == [("path-unsafe", False)]
    assert found(data, "demo-1.0-py3-none-win_amd64.whl") == {("path-unsafe", path)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("demo/Table.csv", "demo/table.CSV"),
        ("demo/straße", "demo/STRASSE"),
        (unicodedata.normalize("NFC", "demo/é"), unicodedata.normalize("NFD", "demo/é")),
    ],
)
def test_two_names_that_some_file_system_takes_for_one_are_noticed(first: str, second: str) -> None:
    """They block wherever the wheel may land on such a file system, and not where all machines are Linux."""
    data = pack({**FILES, first: b"1", second: b"2"})
    assert found(data) == {("name-clash", second)}
    assert found(data, "demo-1.0-cp311-cp311-manylinux_2_28_x86_64.musllinux_1_1_x86_64.whl") == set()
    assert [f.code for f in look(data, "demo-1.0-py3-none-linux_x86_64.whl")[1]] == ["name-clash"]


def test_a_file_that_is_a_folder_too_is_noticed() -> None:
    """One of the two cannot be unpacked, whichever way the case goes."""
    assert found(pack({**FILES, "Demo": b""})) == {("name-clash", "Demo")}
    assert found(pack({**FILES, "demo/x/": b"", "demo/x": b""}), "demo-1.0-py3-none-linux_x86_64.whl") == {
        ("name-clash", "demo/x")
    }


def test_a_file_that_a_library_folder_overwrites_is_noticed() -> None:
    """Installers empty purelib into the same folder, where a second file would win unseen."""
    path = "demo-1.0.data/purelib/demo/__init__.py"
    assert found(pack({**FILES, path: b"evil"}), "demo-1.0-py3-none-linux_x86_64.whl") == {
        ("name-clash", path)
    }


# RECORD


def changed(path: str, row: str) -> bytes:
    """A RECORD in which one line is another."""
    kept = [line for line in record_of(FILES).decode().splitlines() if not line.startswith(f'"{path}"')]
    return "\n".join([*kept, row]).encode()


TABLE = "demo/data/table.csv"
SOUND = stated(FILES[TABLE])


@pytest.mark.parametrize(
    ("record", "member"),
    [
        (changed(TABLE, ""), TABLE),
        (changed(TABLE, f"{TABLE},{stated(b'else')},400"), TABLE),
        (changed(TABLE, f"{TABLE},{SOUND},401"), TABLE),
        (changed(TABLE, f"{TABLE},{SOUND},many"), TABLE),
        (changed(TABLE, f"{TABLE},,400"), TABLE),
        (changed(TABLE, f"{TABLE},{stated(FILES[TABLE], 'md5')},400"), TABLE),
        (changed(TABLE, f"{TABLE},crc32=AAAA,400"), TABLE),
        (changed(TABLE, f"{TABLE},sha256,400"), TABLE),
        (record_of(FILES) + b"gone.py,sha256=AAAA,1\n", "gone.py"),
        (record_of(FILES) + f"{TABLE},{stated(b'else')},4\n".encode(), TABLE),
        (f"{TABLE},{stated(b'else')},4\n".encode() + record_of(FILES), TABLE),
        (record_of(FILES) + b"short,row\n", f"{INFO}/RECORD"),
        (record_of(FILES) + b"\xff,,\n", f"{INFO}/RECORD"),
        (record_of(FILES) + b'"' + b"x" * 200_000 + b'",,\n', f"{INFO}/RECORD"),
    ],
    ids=["unlisted", "hash", "size", "size-word", "no-hash", "md5", "unknown", "empty", "gone", "twice", "twice-before", "row", "utf8", "field"],
)  # fmt: skip
def test_a_record_that_disagrees_is_noticed(record: bytes, member: str) -> None:
    """Each way in which RECORD and the files differ names the file."""
    assert found(pack(record=record)) == {("wheel-record", member)}


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One look at a wheel finds everything, not only the first thing."""
    record = record_of(FILES).replace(b"demo/__init__.py", b"demo/gone.py")
    data = pack(
        {**FILES, "../evil": b"", f"{INFO}/METADATA": METADATA.replace(b"1.0", b"2.0")}, record=record
    )
    assert found(data) == {
        ("path-unsafe", "../evil"),
        ("wheel-record", "../evil"),
        ("wheel-record", "demo/__init__.py"),
        ("wheel-record", "demo/gone.py"),
        ("wheel-record", f"{INFO}/METADATA"),
        ("wheel-invalid", ""),
    }


def test_a_record_may_be_written_in_more_than_one_way() -> None:
    """Better hashes, hexadecimal ones, no sizes, folders and backslashes occur in wheels that install."""
    rows = [f"{path},{stated(data, 'sha512')}," for path, data in FILES.items() if path != TABLE]
    rows += [
        f"demo\\data\\table.csv,sha256={hashlib.sha256(FILES[TABLE]).hexdigest()},400",
        "demo/,,",
        f"{INFO}/RECORD,,",
    ]
    assert look(pack(record="\r\n".join(rows).encode()))[1] == []


def test_signatures_of_a_record_need_no_line_in_it() -> None:
    """They are made after RECORD; the same name elsewhere is a file like any other."""
    signed = {f"{INFO}/RECORD.jws": b"{}", f"{INFO}/RECORD.p7s": b"x"}
    assert look(pack({**FILES, **signed}, record=record_of(FILES)))[1] == []
    stray = {"demo/RECORD.jws": b"{}"}
    assert found(pack({**FILES, **stray}, record=record_of(FILES))) == {("wheel-record", "demo/RECORD.jws")}


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    files=st.dictionaries(st.sampled_from(["demo/a.py", "demo/b c.py", 'demo/"d".py', "demo/é,f.py"]), st.binary(max_size=20)),
)  # fmt: skip
def test_records_are_judged_as_the_installer_library_judges_them(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, files: dict[str, bytes]
) -> None:
    """Whatever is done to the lines of RECORD, two readers agree on whether the wheel may be installed."""
    every = {**FILES, **files}
    rows = {path: [path, stated(content), str(len(content))] for path, content in every.items()}
    for path in data.draw(st.lists(st.sampled_from(sorted(rows)), unique=True, max_size=2)):
        edit = data.draw(st.sampled_from(["drop", "hash", "size", "nohash", "twin", "none"]))
        if edit == "drop":
            del rows[path]
        elif edit == "hash":
            rows[path][1] = stated(every[path] + b"!")
        elif edit == "size":
            rows[path][2] = str(len(every[path]) + 1)
        elif edit == "nohash":
            rows[path][1] = ""
        elif edit == "twin":
            rows[f"{path}/../{path}"] = rows.pop(path)
    quoted = ['"' + path.replace('"', '""') + f'",{digest},{size}' for path, digest, size in rows.values()]
    wheel_bytes = pack(every, record="\n".join([*quoted, f"{INFO}/RECORD,,", ""]).encode())
    file = tmp_path_factory.getbasetemp() / NAME
    file.write_bytes(wheel_bytes)
    with WheelFile.open(file) as source:
        try:
            source.validate_record()
            accepted = True
        except ValueError:
            accepted = False
    codes = {code for code, _ in found(wheel_bytes)}
    assert codes <= {"wheel-record"}
    assert (codes == set()) == accepted


# The texts


@pytest.mark.parametrize("text", ["METADATA", "WHEEL", "RECORD"])
def test_a_wheel_without_its_texts_is_noticed(text: str) -> None:
    """A wheel has all three, or it is none."""
    files = {path: data for path, data in FILES.items() if not path.endswith(text)}
    assert ("wheel-invalid", f"{INFO}/{text}") in found(pack(files, record=b"" if text == "RECORD" else None))


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "demo-2.0.dist-info/METADATA": METADATA},
        {**FILES, "other-1.0.dist-info/WHEEL": WHEEL},
    ],
    ids=["two-versions", "two-projects"],
)
def test_a_wheel_has_one_info_folder(files: dict[str, bytes]) -> None:
    """With none or two of them, readers differ on what the wheel is."""
    assert ("wheel-invalid", "") in found(pack(files))
    assert ("wheel-invalid", "") in found(pack({"demo/__init__.py": b""}, record=b""))


def test_an_info_folder_of_another_project_is_noticed() -> None:
    """A wheel that installs as another project than its name says replaces that project."""
    files = {path.replace("demo-1.0", "other-1.0"): data for path, data in FILES.items()}
    record = record_of(files).replace(b"demo-1.0", b"other-1.0")
    files["other-1.0.dist-info/RECORD"] = record
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for path, data in files.items():
            target.writestr(path, data)
    assert found(archive.getvalue()) == {("wheel-invalid", "other-1.0.dist-info")}


def test_a_vendored_info_folder_is_no_second_one() -> None:
    """Packages that carry others carry their .dist-info too, further down."""
    assert look(pack({**FILES, "demo/_vendor/x-1.dist-info/METADATA": b"Name: x\n"}))[1] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Name: Demo", b"Name: other"),
        (b"Name: Demo\n", b""),
        (b"Name: Demo", b"Name: demo\nName: other"),
        (b"Version: 1.0", b"Version: 1.1"),
        (b"Version: 1.0", b"Version: one"),
        (b"\nVersion: 1.0", b""),
    ],
)
def test_metadata_of_another_project_or_version_is_noticed(old: bytes, new: bytes) -> None:
    """What a wheel is called and what it says it is must be one."""
    assert found(pack({**FILES, f"{INFO}/METADATA": METADATA.replace(old, new)})) == {("wheel-invalid", "")}


def test_names_and_versions_are_compared_as_what_they_mean() -> None:
    """Demo and demo, 1.0 and 1.0.0 are the same."""
    metadata = METADATA.replace(b"Version: 1.0", b"Version: 1.0.0")
    assert look(pack({**FILES, f"{INFO}/METADATA": metadata}), "DEMO-1.0-py3-none-any.whl")[1] == []


@pytest.mark.parametrize("version", [b"Wheel-Version: 2.0", b"Wheel-Version: x", b"Other: 1.0"])
def test_a_newer_kind_of_wheel_is_noticed(version: bytes) -> None:
    """Installers refuse a major version of the format they do not know."""
    files = {**FILES, f"{INFO}/WHEEL": WHEEL.replace(b"Wheel-Version: 1.0", version)}
    assert found(pack(files)) == {("wheel-invalid", f"{INFO}/WHEEL")}


def test_unreadable_entry_points_are_noticed() -> None:
    """uv stops at an entry_points.txt it cannot parse, so we stop earlier."""
    for text in (b"demo = demo:main\n", b"[console_scripts]\nno equals sign\n", b"\xff"):
        path = f"{INFO}/entry_points.txt"
        assert found(pack({**FILES, path: text})) == {("wheel-invalid", path)}


def test_a_text_too_large_to_hold_is_noticed() -> None:
    """METADATA is read whole, so its size has a bound, and a declared size is enough to refuse it."""
    path = f"{INFO}/METADATA"
    _, findings = look(patched(pack(), path, **sizes(unpacked=wheel.TEXT_LIMIT + 1)))
    assert [f.code for f in findings if path in f.subject and "too many for a text" in f.message] == [
        "wheel-invalid"
    ]


# Bombs


def zeros(mebibytes: int) -> bytes:
    """A deflate stream of that many mebibytes of nothing, made without deflating them all."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflater.compress(bytes(1024 * 1024)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + deflater.flush()


def with_stream(stream: bytes, unpacked: int, crc: int | None = None) -> bytes:
    """A wheel with a member whose deflate stream, declared size and check sum are the given ones."""
    path = "demo/zeros"
    data = pack({path: stream, **FILES}, method=zipfile.ZIP_STORED)
    method = struct.pack("<H", zipfile.ZIP_DEFLATED)
    data = patched(data, path, central={10: method}, local={8: method})
    return patched(data, path, **sizes(unpacked=unpacked, crc=crc))


def test_a_stream_that_ends_elsewhere_than_it_should_is_noticed() -> None:
    """Deflate has an end of its own: nothing may be missing before it, and nothing may hide behind it."""
    size = 1024 * 1024
    sound = zeros(1)
    for stream, reason in ((sound + b"hidden", "follow its content"), (sound[:-2], "cut short")):
        _, findings = look(with_stream(stream, size, zlib.crc32(bytes(size))))
        assert [f.code for f in findings if reason in f.message] == ["wheel-invalid"]


def test_a_member_larger_than_it_declares_is_stopped() -> None:
    """A declared size is a promise, and inflating ends where it is broken."""
    facts, findings = look(with_stream(zeros(2000), 1000))
    assert ("wheel-bomb", f"{NAME}: demo/zeros") in {(f.code, f.subject) for f in findings}
    assert facts["unpacked"] < 2 * 1024 * 1024


def test_a_wheel_that_unpacks_to_far_more_than_it_is_is_not_inflated() -> None:
    """A ratio that no wheel needs, over a size that hurts, is refused before anything is inflated."""
    data = with_stream(zeros(600), 600 * 1024 * 1024)
    facts, findings = look(data)
    assert ("wheel-bomb", NAME) in {(f.code, f.subject) for f in findings}
    assert facts["unpacked"] == 0


def test_a_small_wheel_may_have_any_ratio() -> None:
    """Test data of zeros compresses a thousandfold and hurts nobody."""
    files = {**FILES, "demo/zeros": bytes(4 * 1024 * 1024)}
    assert look(pack(files))[1] == []


def test_members_that_overlap_are_noticed() -> None:
    """Two entries of the directory for one stretch of the file unpack it twice: so grow zip bombs."""
    data = pack()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.infolist()[0]
    same = patched(data, TABLE, central={42: struct.pack("<L", first.header_offset)}, local={})
    assert ("wheel-bomb", "demo/__init__.py") in found(same)
    longer = patched(data, "demo/__init__.py", **sizes(packed=first.compress_size + 9))
    assert ("wheel-bomb", "demo/__init__.py") in found(longer)


def test_a_directory_too_large_to_hold_is_refused() -> None:
    """The size that the end record gives its directory bounds what is read at once."""
    data = bytearray(pack() + bytes(zipped.DIRECTORY_LIMIT))
    end = data.index(b"PK\x05\x06")
    data = data[:end] + bytes(zipped.DIRECTORY_LIMIT) + data[end : end + 22]
    struct.pack_into("<L", data, len(data) - 10, zipped.DIRECTORY_LIMIT + 1)
    (refused,) = look(bytes(data))[1]
    assert (refused.code, refused.subject) == ("wheel-invalid", NAME)
    assert f"{zipped.DIRECTORY_LIMIT + 1} bytes" in refused.message


def test_memory_stays_flat_whatever_the_members_weigh(tmp_path: Path) -> None:
    """A member of 64 MiB needs no more memory than its chunks."""
    path = tmp_path / NAME
    path.write_bytes(pack({**FILES, "demo/large": os.urandom(1024) * 64 * 1024}))
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            facts, findings = wheel.inspect(file, NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert findings == []
    assert facts["unpacked"] > 64 * 1024 * 1024
    assert peak < 6 * 1024 * 1024


# Everything at once


@settings(max_examples=400, deadline=None)
@given(
    place=st.integers(0, 10_000),
    kind=st.sampled_from(["flip", "cut", "insert", "zero", "swap"]),
    byte=st.integers(0, 255),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_no_damage_passes_and_none_raises(place: int, kind: str, byte: int, method: int) -> None:
    """However a wheel is mangled, reading it ends with findings, or its files are what they were."""
    data = pack(method=method)
    place %= len(data)
    edits: dict[str, Callable[[], bytes]] = {
        "flip": lambda: data[:place] + bytes([data[place] ^ (byte or 1)]) + data[place + 1 :],
        "cut": lambda: data[:place] + data[place + 1 + byte :],
        "insert": lambda: data[:place] + bytes([byte]) * (1 + byte) + data[place:],
        "zero": lambda: data[:place] + bytes(min(1 + byte, len(data) - place)) + data[place + 1 + byte :],
        "swap": lambda: data[place:] + data[:place],
    }
    mangled = edits[kind]()
    _, findings = look(mangled)
    if not any(f.blocking for f in findings):
        with zipfile.ZipFile(io.BytesIO(mangled)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == {
                **FILES,
                f"{INFO}/RECORD": record_of(FILES),
            }


@pytest.mark.network
def test_real_wheels_pass_clean(tmp_path: Path) -> None:
    """Wheels that everybody installs have no finding, and the installer library agrees."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    certificates = {key: os.environ[key] for key in ("PIP_CERT",) if key in os.environ}
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", str(tmp_path)]  # fmt: skip
    target = [
        "--python-version",
        "3.11",
        "--platform",
        "manylinux_2_17_x86_64",
        "--platform",
        "manylinux_2_28_x86_64",
    ]
    names = ["numpy", "pandas", "scikit-learn", "setuptools", "uv", "tqdm"]
    subprocess.run(
        [*command, *target, *names],
        check=True,
        env={
            **environment,
            **certificates,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
    )
    paths = sorted(tmp_path.glob("*.whl"))
    assert len(paths) == len(names)
    for path in paths:
        with path.open("rb") as file:
            facts, findings = wheel.inspect(file, path.name)
        assert findings == []
        assert facts["modules"]
        with WheelFile.open(path) as source:
            source.validate_record()
