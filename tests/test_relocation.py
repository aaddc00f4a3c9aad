from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import conda_pack  # type: ignore[import-untyped]
import pytest
from rattler import PrefixRecord

from haversack.errors import FormatError, IntegrityError, PrefixError
from haversack.formats.canonical import canonical
from haversack.formats.prefixes import MARKER
from haversack.relocation import archive, manifest, tape
from haversack.relocation.drift import drift
from haversack.relocation.manifest import Manifest
from haversack.relocation.restore import restore
from haversack.relocation.scan import Scan, scan
from haversack.relocation.spelling import Mode, Move, Occurrence, measure, rewritten
from haversack.relocation.tape import Member
from tests.support.legacy import make_conda_env, make_venv

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

OLD = (b"/opt/env",)


def moved(data: bytes, new: bytes, mode: Mode = "text", *, everywhere: bool = False, step: int = 0) -> bytes:
    """Some bytes after a move from ``/opt/env``, given in pieces of ``step`` bytes."""
    chunks = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    occurrence = Occurrence("file", mode, 255 if mode == "binary" else None, everywhere)
    return b"".join(rewritten(chunks, occurrence, Move(OLD, new)))


# Where a path begins and ends


@pytest.mark.parametrize(
    "text",
    [
        "{}", "{}/", "{}/bin/python", "PATH={}:{}/bin", "-I{}/include -L{}/lib -isystem{}/include", "'{}'",
        '"\\n{}/x"', "file://{}/share", "${{HOME:-{}}}", "cd {};", "it is in {}.", "s@{}@x@", "s%{}%x%",
        "prefix = {}\n", "[{}]", "Wl,-rpath,{}/lib", "{}\\n", "<a href='{}/x'>",
    ],
)  # fmt: skip
def test_a_path_is_found_wherever_programs_write_it(text: str) -> None:
    """Whatever stands around the path of an environment, it is replaced."""
    assert moved(text.format(*["/opt/env"] * 3).encode(), b"/new") == text.format(*["/new"] * 3).encode()


@pytest.mark.parametrize(
    "text",
    [
        "/opt/env2", "/opt/env2/bin", "/opt/env-old", "/opt/env_1", "/opt/env.bak/x", "/opt/env+x", "/opt/env~",
        "/opt/envé", "/srv/opt/env", "$HOME/opt/env", "${ROOT}/opt/env", "./opt/env", "../opt/env/x",
        "~/opt/env", "usr/opt/env", "/opt/en", "opt/env",
    ],
)  # fmt: skip
def test_a_longer_path_is_another_one(text: str) -> None:
    """A path of which that of the environment is only a part stays what it is, in text and in programs."""
    data = text.encode()
    assert moved(data, b"/new") == data
    assert moved(b"\0" + data + b"\0\0", b"/new", "binary") == b"\0" + data + b"\0\0"


def test_what_a_package_vouches_for_needs_no_proof() -> None:
    """Where a conda package had a placeholder, every occurrence is the path, as conda itself has it."""
    assert moved(b"x/opt/env2", b"/new", everywhere=True) == b"x/new2"


def test_a_string_in_a_program_keeps_its_size() -> None:
    """In a binary file each string is filled up with NULs, and nothing else moves."""
    data = b"\x7fELF\0/opt/env/lib:/opt/env/lib64\0next\0/opt/env\0"
    for step in (0, 1, 2, 5, 7):
        done = moved(data, b"/o", "binary", step=step)
        assert done == b"\x7fELF\0/o/lib:/o/lib64" + b"\0" * 13 + b"next\0/o" + b"\0" * 7
        assert len(done) == len(data)


def test_a_longer_path_uses_the_nuls_that_the_placeholder_left() -> None:
    """What conda filled up is room again, as far as the placeholder was long and the NULs are still there."""
    data = b"a\0/opt/env/lib" + b"\0" * 11 + b"b"
    assert measure([data], OLD, 255).room == len("/opt/env") + 10
    assert measure([data], OLD, 12).room == 12
    assert measure([data], OLD, None).room == len("/opt/env")
    new = b"/opt/environments1"
    assert moved(data, new, "binary", everywhere=True) == b"a\0" + new + b"/lib\0b"
    with pytest.raises(ValueError, match="no room"):
        moved(data, new + b"2", "binary", everywhere=True)


def test_two_paths_in_one_string_share_its_room() -> None:
    """The room is for all occurrences of a string together."""
    data = b"/opt/env/a:/opt/env/b" + b"\0" * 6
    assert measure([data], OLD, 255).room == len("/opt/env") + 2
    assert moved(data, b"/opt/env12", "binary", everywhere=True) == b"/opt/env12/a:/opt/env12/b\0\0"


def test_a_string_that_is_none_is_left_alone() -> None:
    """A path in serialised objects, or without a NUL after it, cannot be replaced, and is told."""
    for data in (b"\0X\x08\0\0\0/opt/envq\x01\x85R.\0", b"\0/opt/env\x02\0", b"\0ends with /opt/env"):
        assert moved(data, b"/n", "binary") == data
    assert measure([b"\0/opt/env\x02\0"], OLD, None).odd
    assert measure([b"\0/opt/env\x02\0/opt/env\0"], OLD, None).room == 8


def test_the_first_line_of_a_zipped_program_is_rewritten_alone() -> None:
    """A zip archive behind a first line keeps its bytes."""
    data = b"#!/opt/env/bin/python\nPK\x03\x04\0/opt/env\0"
    assert moved(data, b"/home/me/env", "shebang") == b"#!/home/me/env/bin/python\nPK\x03\x04\0/opt/env\0"


@pytest.mark.parametrize("place", ["/with a space/env", "/" + "long" * 40])
def test_a_first_line_that_the_kernel_refuses_goes_through_the_shell(tmp_path: Path, place: str) -> None:
    """A script still runs where the path of its interpreter has a space or is too long for a first line."""
    home = Path(f"{tmp_path}{place}")
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(sys.executable)
    script = home / "bin" / "tool"
    data = moved(
        b"#!/opt/env/bin/python -I\nimport sys\nprint(sys.argv[1:], sys.flags.isolated)\n",
        os.fsencode(home),
    )
    script.write_bytes(data)
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', 'c'] 1\n"
    assert moved(b"#!/opt/env/bin/perl\n", os.fsencode(home)) == b"#!/usr/bin/env perl\n"


def test_pieces_may_be_cut_anywhere() -> None:
    """However a file is cut into chunks, what comes out is the same."""
    chance = random.Random(7)
    words = [
        b"/opt/env",
        b"/opt/env2",
        b"\n",
        b"\0",
        b"\0\0\0\0",
        b"x",
        b"/srv",
        b"-I",
        b"\\n",
        b" ",
        b"\x01",
        b"/lib",
    ]
    for _ in range(300):
        data = b"".join(chance.choices(words, k=20)) + b"\0" * 300
        for mode in ("text", "binary"):
            whole = moved(data, b"/new", mode)
            assert all(moved(data, b"/new", mode, step=step) == whole for step in (1, 3, 11))


@pytest.mark.parametrize(("mode", "filling"), [("text", b"x"), ("binary", b"x"), ("binary", b"\0")])
def test_a_large_file_without_lines_is_not_held_in_memory(mode: Mode, filling: bytes) -> None:
    """Of 256 MiB in one line, or of NULs, a few mebibytes are in memory at once, and every path is found."""

    def chunks() -> Iterator[bytes]:
        yield b"\0 /opt/env/a\0 /opt"
        yield b"/env/b" + filling
        for _ in range(256):
            yield filling * (1 << 20)
        yield b" /opt/en"
        yield b"v\0"

    tracemalloc.start()
    occurrence = Occurrence("file", mode, 8 if mode == "binary" else None)
    found = [part for part in rewritten(chunks(), occurrence, Move(OLD, b"/opt/new")) if b"/opt/new" in part]
    reading = measure(chunks(), OLD, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    # A string of 256 MiB is none; what stands in it is told, and stays.
    kept = mode == "binary" and filling == b"x"
    assert b"".join(found).count(b"/opt/new") == (1 if kept else 3)
    assert reading.room == 8
    assert reading.odd == (filling == b"x")


def test_many_strings_are_read_in_time_for_their_number() -> None:
    """A file that is nothing but paths takes no longer for each, however many there are."""
    data = b"/opt/env\0" * 60_000
    started = time.process_time()
    assert moved(data, b"/o", "binary") == b"/o\0\0\0\0\0\0\0" * 60_000
    assert time.process_time() - started < 10


# The archive


def packed(root: Path) -> tuple[bytes, Scan]:
    """The archive of a folder, which nothing keeps from travelling."""
    told = scan(root)
    assert not [finding for finding in told.findings if finding.blocking], told.findings
    file = io.BytesIO()
    done = archive.write(told, file)
    data = file.getvalue()
    assert done.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert done.size == len(data)
    return data, done.scan


def put(data: bytes, home: Path, python: Path | None = None) -> Path:
    """Restore an archive at home."""
    home.parent.mkdir(parents=True, exist_ok=True)
    restore(io.BytesIO(data), home, home, python)
    return home


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """What is in a folder: kind, permissions, date and bytes, or target; dates of folders do not count."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status, name = path.lstat(), str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("folder", stat.S_IMODE(status.st_mode))
        else:
            found[name] = ("file", stat.S_IMODE(status.st_mode), int(status.st_mtime), path.read_bytes())
    return found


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with everything that a folder may hold, all of it fit to travel."""
    root = tmp_path / "odd"
    (root / "bin").mkdir(parents=True)
    (root / "empty folder").mkdir()
    (root / "deep" / ("n" * 90) / ("m" * 90)).mkdir(parents=True)
    (root / "deep" / ("n" * 90) / ("m" * 90) / "file").write_text(f"here: {root}\n")
    (root / "nothing").touch()
    (root / "grüße 日本").write_text(f"at {root}/x, not at {root}2\n")
    (root / "bin" / "run").write_text(f"#!{root}/bin/sh\n")
    (root / "bin" / "run").chmod(0o755)
    (root / "secret").write_bytes(b"read only")
    (root / "secret").chmod(0o400)
    (root / "one").write_text(f"twins in {root}\n")
    (root / "two").hardlink_to(root / "one")
    (root / "inside").symlink_to(root / "deep")
    (root / "bin" / "here").symlink_to(root)
    (root / "link").symlink_to("deep/../nothing")
    (root / "nowhere").symlink_to("bin/none")
    (root / "far").symlink_to("deep/" + "n" * 90 + "/" + "m" * 90 + "/file")
    (root / "large").write_bytes(random.Random(1).randbytes(3 << 20) + f"\0{root}/lib\0".encode())
    for path in root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def test_a_folder_comes_back_as_it_was(odd: Path, tmp_path: Path) -> None:
    """Put back where it was, a folder has the same files, permissions, dates, links and empty folders."""
    data, _ = packed(odd)
    before = tree(odd)
    odd.rename(tmp_path / "gone")
    after = tree(put(data, odd))
    assert after.pop("inside") == ("link", "deep")
    assert after.pop("bin/here") == ("link", "..")
    assert after.pop("link") == ("link", "nothing")
    for name in ("inside", "bin/here", "link"):
        del before[name]
    assert after == before
    assert (odd / "one").stat().st_ino == (odd / "two").stat().st_ino
    assert drift(odd, io.BytesIO(data)) == []


def test_the_same_folder_gives_the_same_bytes(odd: Path, tmp_path: Path) -> None:
    """Packed again, and after it was copied away and back, a folder has one digest; nobody's name is in it."""
    data, _ = packed(odd)
    shutil.copytree(odd, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy" / "two").unlink()
    (tmp_path / "copy" / "two").hardlink_to(tmp_path / "copy" / "one")
    odd.rename(tmp_path / "gone")
    (tmp_path / "copy").rename(odd)
    assert packed(odd)[0] == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert members[0].name == tape.MANIFEST
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert [m.name for m in members[1:]] == sorted(m.name for m in members[1:])


def test_other_readers_understand_the_archive(odd: Path, tmp_path: Path) -> None:
    """The standard library and the system's tar unpack what we packed, name for name and byte for byte."""
    data, told = packed(odd)
    (tmp_path / "x.tar").write_bytes(data)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xpf", tmp_path / "x.tar", "-C", tmp_path / "out"], check=True)
    got = tree(tmp_path / "out" / tape.TOP)
    assert set(got) == {m.path for m in told.members if m.path}
    assert {n: v for n, v in got.items() if v[0] == "file"} == {
        n: v for n, v in tree(odd).items() if v[0] == "file"
    }
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {m.name for m in tar} == {tape.MANIFEST, tape.TOP, *(f"{tape.TOP}/{n}" for n in got)}


def test_the_facts_are_those_of_the_files(odd: Path) -> None:
    """Reading the archive gives what a lock keeps: make, paths, room, number and bytes."""
    data, _ = packed(odd)
    facts, findings = archive.inspect(io.BytesIO(data))
    files = [path for path in odd.rglob("*") if path.is_file() and not path.is_symlink()]
    assert findings == []
    assert facts == {
        "flavour": "folder",
        "prefixes": [str(odd)],
        "room": len(str(odd)),
        "files": len(files) - 1,
        "unpacked": sum(path.stat().st_size for path in files) - (odd / "one").stat().st_size,
    }
    assert canonical(facts)


def test_a_folder_known_by_two_paths_is_rewritten_for_both(tmp_path: Path) -> None:
    """Where the declared path is a link, files that name either are rewritten."""
    (tmp_path / "data" / "env").mkdir(parents=True)
    (tmp_path / "opt").symlink_to("data")
    (tmp_path / "data" / "env" / "a").write_text(f"{tmp_path}/opt/env/x {tmp_path}/data/env/y\n")
    data, _ = packed(tmp_path / "opt" / "env")
    home = put(data, tmp_path / "home")
    assert (home / "a").read_text() == f"{home}/x {home}/y\n"


def _handmade(*members: tuple[Member, bytes], told: bytes | None = None, end: bytes = tape.END) -> bytes:
    """An archive of some members, whatever they are."""
    plain = manifest.write(Manifest("folder", ("/opt/env",), None, ())) if told is None else told
    parts = [tape.manifest_header(len(plain)), plain, tape.padding(len(plain))]
    for member, data in members:
        parts += [tape.header(member), data, tape.padding(len(data))]
    return b"".join([*parts, end])


TOP = (Member("", "folder", 0o755), b"")
FOLDER = (Member("a", "folder", 0o755), b"")
FILE = (Member("a/f", "file", 0o644, 2), b"hi")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "holds no folder"),
        ([FOLDER], "in no folder"),
        ([TOP, FILE], "in no folder"),
        ([TOP, (Member("..", "folder", 0o755), b"")], "not a plain path"),
        ([TOP, FOLDER, (Member("a/../../x", "file", 0o644), b"")], "not a plain path"),
        ([TOP, (Member("/etc", "folder", 0o755), b"")], "not a plain path"),
        ([TOP, FOLDER, FOLDER], "stands twice"),
        ([TOP, FOLDER, FILE, FILE], "stands twice"),
        ([TOP, (Member("b", "folder", 0o755), b""), FOLDER], "out of order"),
        ([TOP, (Member("a", "symlink", 0o777, target="/etc"), b"")], "leaves the folder"),
        ([TOP, (Member("a", "symlink", 0o777, target="../x"), b"")], "leaves the folder"),
        ([TOP, (Member("a", "symlink", 0o777, target="b/../../x"), b"")], "leaves the folder"),
        ([TOP, (Member("a", "symlink", 0o777, target="b/.."), b"")], "leaves the folder"),
        ([TOP, FOLDER, (Member("a/l", "symlink", 0o777, target="../../x"), b"")], "leaves the folder"),
        ([TOP, (Member("a", "symlink", 0o777, target="."), b""), FILE], "in no folder"),
        ([TOP, (Member("a", "hardlink", 0o644, target="../../etc/passwd"), b"")], "no file before it"),
        ([TOP, (Member("a", "symlink", 0o777, target="b"), b""), (Member("h", "hardlink", 0o6, target="a"), b"")],
         "no file before it"),
        ([TOP, FOLDER, (Member("a/f", "file", 0o4755), b"")], "does not write"),
        ([TOP, (Member("a", "folder", 0o755, 512), b"x" * 512)], "has a size"),
    ],
)  # fmt: skip
def test_an_archive_that_leads_elsewhere_is_refused(
    members: list[tuple[Member, bytes]], why: str, tmp_path: Path
) -> None:
    """Nothing is read from an archive that names, or links to, what is not below its folder."""
    data = _handmade(*members)
    facts, (finding,) = archive.inspect(io.BytesIO(data))
    assert facts == {}
    assert why in finding.message
    assert finding.blocking
    with pytest.raises(IntegrityError):
        restore(io.BytesIO(data), tmp_path / "home", tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["home"])


def test_a_sound_handmade_archive_is_read() -> None:
    """The archives above are refused for what is wrong with them alone."""
    assert archive.inspect(io.BytesIO(_handmade(TOP, FOLDER, FILE)))[1] == []


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"7", b"g", b"L", b"S", b"D"])
def test_devices_and_dialects_are_refused(kind: bytes) -> None:
    """A device, a pipe, a sparse file or a header of another dialect is nothing that we write."""
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as tar:
        info = tarfile.TarInfo(f"{tape.TOP}/")
        info.type = kind
        tar.addfile(info)
    body = made.getvalue()[:512]
    _, findings = archive.inspect(
        io.BytesIO(_handmade(TOP, (Member("a", "file", 0o644), b""), end=body + tape.END))
    )
    assert [finding.code for finding in findings] == [archive.INVALID]


def test_an_archive_of_another_program_is_refused(odd: Path) -> None:
    """The reader takes only its own spelling, so that nothing hides in owners, names or dates."""
    data, _ = packed(odd)
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as tar,
        tarfile.open(fileobj=(again := io.BytesIO()), mode="w") as out,
    ):
        for member in tar:
            member.uname = "eve"
            out.addfile(member, tar.extractfile(member) if member.isreg() else None)
    assert archive.inspect(io.BytesIO(again.getvalue()))[1][0].code == archive.INVALID


def test_damage_is_found_and_never_crashes(odd: Path) -> None:
    """A byte changed in a header is refused wherever it is; elsewhere the digest is what protects."""
    (odd / "large").unlink()
    data, _ = packed(odd)
    chance = random.Random(3)
    for _ in range(600):
        at = chance.randrange(len(data))
        bad = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        archive.inspect(io.BytesIO(bad))
    for at in range(512):
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert archive.inspect(io.BytesIO(bad))[1], at
    for end in (0, 1, 511, 512, 700, len(data) // 2, len(data) - 1, len(data) - 1024):
        assert archive.inspect(io.BytesIO(data[:end]))[1], end
    assert archive.inspect(io.BytesIO(data + b"x"))[1]


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (b"{}", archive.INVALID),
        (b"not json", archive.INVALID),
        (canonical({"haversack-prefix": "2.0"}), "format-newer"),
        (canonical({"haversack-prefix": "1.0", "flavour": "snake", "prefixes": ["/x"], "files": []}), archive.INVALID),
        (canonical({"haversack-prefix": "1.0", "flavour": "venv", "prefixes": ["/x"], "files": []}), archive.INVALID),
        (canonical({"haversack-prefix": "1.0", "flavour": "folder", "prefixes": [], "files": []}), archive.INVALID),
        (canonical({"haversack-prefix": "1.0", "flavour": "folder", "prefixes": ["/x"],
                    "files": [{"path": "gone", "mode": "text"}]}), archive.INVALID),
        (canonical({"haversack-prefix": "1.0", "flavour": "folder", "prefixes": ["/x"],
                    "files": [{"path": "a/f", "mode": "binary"}]}), archive.INVALID),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_the_archive_is_refused(told: bytes, code: str, tmp_path: Path) -> None:
    """A manifest is read strictly, and names only files that are there."""
    data = _handmade(TOP, FOLDER, FILE, told=told)
    assert [finding.code for finding in archive.inspect(io.BytesIO(data))[1]] == [code]
    with pytest.raises((IntegrityError, FormatError)):
        restore(io.BytesIO(data), tmp_path / "home", tmp_path / "home")


def test_a_folder_that_changes_while_it_is_packed_is_not_packed(odd: Path) -> None:
    """What was looked at is what travels, or nothing does."""
    told = scan(odd)
    (odd / "one").write_text("something else\n")
    with pytest.raises(PrefixError, match="changed"):
        archive.write(told, io.BytesIO())
    (odd / "one").unlink()
    with pytest.raises(PrefixError, match="cannot be read"):
        archive.write(told, io.BytesIO())


class _Meddled(io.BytesIO):
    """A file to pack into; whenever it is begun anew, a function has been called."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._meddle = meddle

    def write(self, data: Buffer, /) -> int:
        if not self.tell():
            self._meddle()
        return super().write(data)


def _believed(root: Path, count: int) -> Iterator[None]:
    """Make an environment of one package with so many files; alter the next of them at each step, unseen."""
    rows = []
    (root / "conda-meta").mkdir(parents=True)
    for number in range(count):
        (root / f"f{number}").write_bytes(b"good")
        rows.append(
            {"_path": f"f{number}", "sha256": hashlib.sha256(b"good").hexdigest(), "size_in_bytes": 4}
        )
    record = {"name": "a", "version": "1", "paths_data": {"paths": rows}}
    (root / "conda-meta" / "a-1-0.json").write_text(json.dumps(record))
    yield
    for number in range(count):
        status = (root / f"f{number}").stat()
        (root / f"f{number}").write_bytes(b"evil")
        os.utime(root / f"f{number}", ns=(status.st_mtime_ns, status.st_mtime_ns))
        yield


def test_every_file_that_was_found_to_differ_is_remembered(tmp_path: Path) -> None:
    """Two files that change one after the other while they are packed are both read, and told, at the end."""
    steps = _believed(tmp_path / "env", 2)
    next(steps)
    done = archive.write(scan(tmp_path / "env"), file := _Meddled(lambda: next(steps, None)))
    assert [f.message for f in done.scan.findings] == ["2 files are altered: f0, f1"]
    assert archive.inspect(io.BytesIO(file.getvalue()))[1] == []


def test_a_folder_that_goes_on_changing_is_not_packed_for_ever(tmp_path: Path) -> None:
    """Where each time another file differs, somebody writes there: that is an error and not a loop."""
    steps = _believed(tmp_path / "env", 20)
    next(steps)
    with pytest.raises(PrefixError, match="changes while"):
        archive.write(scan(tmp_path / "env"), _Meddled(lambda: next(steps, None)))


# What cannot travel


def _codes(root: Path) -> list[tuple[str, str, bool]]:
    return sorted((f.code, f.subject, f.blocking) for f in scan(root).findings)


def _editable(root: Path, path: str) -> None:
    info = root / "lib/python3.11/site-packages/mine-1.0.dist-info"
    info.mkdir(parents=True)
    told = {"url": f"file://{path}", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(told))


def _pth(name: str, line: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        site = root / "lib/python3.11/site-packages"
        site.mkdir(parents=True)
        comment = "" if name.endswith(".egg-link") else "# comment\nimport sys\n"
        (site / name).write_text(f"{comment}{line.format(root)}\n")

    return write


def _fifo(root: Path) -> None:
    os.mkfifo(root / "pipe")


def _bytes_name(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).touch()


@pytest.mark.parametrize(
    ("spoil", "subject"),
    [
        (lambda root: (root / "l").symlink_to("/etc/hosts"), "l"),
        (lambda root: (root / "l").symlink_to("../../elsewhere"), "l"),
        (lambda root: (root / "l").symlink_to(f"{root}2/x"), "l"),
        (lambda root: (root / "l").symlink_to("/nowhere/at/all"), "l"),
        (_fifo, "pipe"),
        (_bytes_name, "'caf\\udce9'"),
        (lambda root: _editable(root, "/home/me/mine"), "lib/python3.11/site-packages/mine-1.0.dist-info/direct_url.json"),
        (_pth("__editable__.mine.pth", "/home/me/mine/src"), "lib/python3.11/site-packages/__editable__.mine.pth"),
        (_pth("far.pth", "../../../../elsewhere"), "lib/python3.11/site-packages/far.pth"),
        (_pth("mine.egg-link", "/home/me/mine"), "lib/python3.11/site-packages/mine.egg-link"),
    ],
)  # fmt: skip
def test_what_cannot_be_moved_is_found_before_it_travels(
    spoil: Callable[[Path], object], subject: str, tmp_path: Path
) -> None:
    """Links, projects and devices outside of the folder, and names that are none, each block and are named."""
    root = tmp_path / "env"
    root.mkdir()
    spoil(root)
    assert _codes(root) == [("prefix-unmovable", subject, True)]
    assert all(finding.remedy for finding in scan(root).findings)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: _editable(root, f"{root}/src/mine"),
        _pth("mine.pth", "{}/src/mine"),
        _pth("near.pth", "../../../src"),
    ],
)
def test_what_points_into_the_folder_moves_with_it(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    """An editable project that lies within the environment travels with it."""
    root = tmp_path / "env"
    root.mkdir()
    spoil(root)
    assert _codes(root) == []


def test_a_path_that_nobody_can_rewrite_is_told(tmp_path: Path) -> None:
    """A path within a serialised object does not keep a folder from travelling, but somebody should know."""
    root = tmp_path / "env"
    root.mkdir()
    (root / "state.pickle").write_bytes(b"\x80\x04\0" + str(root).encode() + b"\x94.\0")
    assert _codes(root) == [("prefix-unmovable", "state.pickle", False)]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """What is not there, is a file, or is the root of the machine is no environment."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "absent", Path("/")):
        with pytest.raises(PrefixError):
            scan(place)


@pytest.mark.parametrize("name", ["o'brien", 'a"b', "a$b", "a\\b", "a`b"])
def test_a_folder_whose_path_scripts_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    """Scripts spell such a path in other ways, so that nobody finds it; what was packed could not be read."""
    (tmp_path / name).mkdir()
    with pytest.raises(PrefixError, match="cannot hold that path"):
        scan(tmp_path / name)


def test_what_is_gone_meanwhile_is_told() -> None:
    """A name that is listed and names nothing any more is a finding, as the system makes them in its own folder."""
    found = [f for f in scan(Path("/proc/self/fd")).findings if "cannot be read" in f.message]
    assert [f.code for f in found] == ["prefix-unmovable"]
    assert found[0].blocking


def test_nothing_is_a_link_to_bytecode_that_stays_behind(tmp_path: Path) -> None:
    """A hard link to bytecode that is left out travels as a file of its own."""
    root = tmp_path / "env"
    (root / "a" / "__pycache__").mkdir(parents=True)
    (root / "a" / "x.py").touch()
    (root / "a" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"bytecode")
    (root / "other").hardlink_to(root / "a" / "__pycache__" / "x.cpython-311.pyc")
    (root / "y.pyc").hardlink_to(root / "other")
    data, told = packed(root)
    assert archive.inspect(io.BytesIO(data))[1] == []
    assert {m.path for m in told.members if m.kind == "file"} == {"a/x.py", "other", "y.pyc"}
    assert (put(data, tmp_path / "home") / "y.pyc").read_bytes() == b"bytecode"


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        '{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": 5, "prefix_placeholder": "/a"}]}}',
        '{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": ["x"]}]}}',
        '{"name": "a", "version": "1", "paths_data": {"paths": [{"_path": "x", "prefix_placeholder": 5}]}}',
        '{"name": "a", "version": "1", "paths_data": {"paths": [5]}}',
    ],
)
def test_a_record_that_is_none_is_told(record: str, tmp_path: Path) -> None:
    """Whatever stands in conda-meta, it is named, and does not keep the folder from travelling."""
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta" / "a-1-0.json").write_text(record)
    assert _codes(tmp_path) == [("prefix-changed", "conda-meta/a-1-0.json", False)]


def test_what_can_be_made_again_stays_behind(tmp_path: Path) -> None:
    """Bytecode beside its source, package caches and other environments of a base, and our marker do not travel."""
    root = tmp_path / "base"
    for folder in (
        "conda-meta",
        "pkgs/x",
        "envs/y",
        "lib/mod/__pycache__",
        "lib/old/__pycache__",
        "share/pkgs",
    ):
        (root / folder).mkdir(parents=True)
    for file in ("pkgs/x/f", "envs/y/f", "share/pkgs/f", MARKER, "lib/mod/a.py", "lib/bare.pyc",
                 "lib/mod/__pycache__/a.cpython-311.pyc", "lib/mod/__pycache__/a.cpython-311.opt-1.pyc",
                 "lib/old/__pycache__/gone.cpython-311.pyc"):  # fmt: skip
        (root / file).touch()
    assert {member.path for member in scan(root).members if member.kind == "file"} == {
        "share/pkgs/f", "lib/mod/a.py", "lib/bare.pyc", "lib/old/__pycache__/gone.cpython-311.pyc",
    }  # fmt: skip
    assert "lib/mod/__pycache__" not in {member.path for member in scan(root).members}


# A path that does not fit


@pytest.mark.parametrize(
    "home", ["/a'b", '/a"b', "/a$b", "/a\\b", "/a`b`", "/a\nb", "relative", "/a//b", "/a/", "/"]
)
def test_a_path_that_scripts_cannot_hold_is_refused(home: str) -> None:
    """Quotes, escapes and control characters in a path would make other scripts of those that name it."""
    with pytest.raises(PrefixError, match="scripts"):
        Manifest("folder", ("/opt/env",), None, ()).move(home)


def test_a_path_that_is_too_long_leaves_nothing_behind(odd: Path, tmp_path: Path) -> None:
    """The longest path that fits is told, with the file that has so little room, before anything is written."""
    data, _ = packed(odd)
    fitting = tmp_path / ("x" * (len(str(odd)) - len(str(tmp_path)) - 1))
    too_long = fitting.with_name(fitting.name + "x")
    with pytest.raises(PrefixError) as caught:
        restore(io.BytesIO(data), too_long, too_long)
    (finding,) = caught.value.findings
    assert (finding.code, finding.subject) == ("prefix-long", "large")
    assert str(len(str(odd))) in caught.value.remedy
    assert not too_long.exists()
    put(data, fitting)
    assert f"\0{fitting}/lib\0".encode() in (fitting / "large").read_bytes()


# Virtual environments


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Where a virtual environment was, and its archive; it is not there any more."""
    folder = tmp_path_factory.mktemp("venv")
    root = make_venv(folder / "old", folder / "wheels", Path(sys.executable))
    data, told = packed(root)
    assert told.manifest.flavour == "venv"
    root.rename(folder / "gone")
    return root, data


def _python() -> Path:
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _runs(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_virtual_environment_runs_where_it_was_put(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """Its scripts and its Python work with the original gone, and nothing in it names the old place."""
    old, data = venv
    home = put(data, tmp_path / "a rather longer place" / "env", _python())
    assert _runs(home / "bin" / "tool") == str(home)
    assert _runs(home / "bin" / "python", "-c", "import tool; tool.main()") == str(home)
    assert f"home = {_python().parent}" in (home / "pyvenv.cfg").read_text()
    assert _runs(Path("/bin/sh"), "-c", f'. "{home}/bin/activate" && command -v tool') == str(
        home / "bin/tool"
    )
    named = [path for path in home.rglob("*") if path.is_file() and str(old).encode() in path.read_bytes()]
    assert named == []
    assert drift(home, io.BytesIO(data)) == []


def test_a_virtual_environment_moves_twice(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """What was restored is packed again as any other, and is the same but for where it stands."""
    _, data = venv
    first = put(data, tmp_path / "first", _python())
    assert _runs(first / "bin" / "tool") == str(first)
    again, _ = packed(first)
    first.rename(tmp_path / "gone")
    second = put(again, tmp_path / "second" / "and longer", _python())
    assert _runs(second / "bin" / "tool") == str(second)
    second.rename(tmp_path / "gone too")
    back = put(packed(tmp_path / "gone too")[0], tmp_path / "third", _python())
    # Moved by hand in between: its files name a place that nobody told us of.
    assert _runs(back / "bin" / "python", "-c", "import tool; tool.main()") == str(back)


def test_an_interpreter_that_is_another_is_written_down(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """The interpreter of the machine is linked to and named in pyvenv.cfg; the old one is in no file."""
    _, data = venv
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "python3.11").symlink_to(_python())
    home = put(data, tmp_path / "home", tmp_path / "py" / "python3.11")
    assert (home / "bin" / "python").readlink() == tmp_path / "py" / "python3.11"
    assert (home / "bin" / "python3").readlink() == Path("python")
    assert f"home = {tmp_path / 'py'}\n" in (home / "pyvenv.cfg").read_text()
    assert drift(home, io.BytesIO(data)) == []


def test_use_does_not_change_what_is_packed(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """Bytecode that Python wrote meanwhile does not make another archive, nor is it drift."""
    _, data = venv
    home = put(data, tmp_path / "home", _python())
    before, _ = packed(home)
    _runs(home / "bin" / "tool")
    assert list(home.rglob("__pycache__/*.pyc"))
    assert packed(home)[0] == before
    assert drift(home, io.BytesIO(data)) == []


def test_system_packages_are_told(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """A virtual environment that also uses the machine's own packages says so, and may travel."""
    home = put(venv[1], tmp_path / "home", _python())
    config = (home / "pyvenv.cfg").read_text().replace("packages = false", "packages = true")
    (home / "pyvenv.cfg").write_text(config)
    assert _codes(home) == [("prefix-unmovable", "pyvenv.cfg", False)]
    (home / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert _codes(home) == [("prefix-unmovable", "pyvenv.cfg", True)]


def _spoiled(home: Path) -> None:
    site = next(home.glob("lib/python3.*/site-packages"))
    (site / "tool" / "__init__.py").write_text("evil\n")
    (home / "bin" / "tool").unlink()
    (home / "bin" / "new").touch()
    (site / "extra").mkdir()
    (site / "extra" / "one.py").touch()
    (home / "bin" / "activate").chmod(0o755)
    (home / MARKER).touch()
    (site / "hollow").mkdir()


def test_drift_is_every_difference(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """A file that was altered, is gone, or is new is found; of a new folder with files only the folder."""
    home = put(venv[1], tmp_path / "home", _python())
    _spoiled(home)
    site = str(next(home.glob("lib/python3.*/site-packages")).relative_to(home))
    assert [(f.code, f.subject) for f in drift(home, io.BytesIO(venv[1]))] == [
        ("env-changed", "bin/activate"),
        ("env-changed", f"{site}/tool/__init__.py"),
        ("env-extra", "bin/new"),
        ("env-extra", f"{site}/extra/"),
        ("env-missing", "bin/tool"),
    ]


@pytest.mark.parametrize("code", ["env-changed", "env-missing"])
def test_a_large_file_that_changed_accuses_no_record(code: str, tmp_path: Path) -> None:
    """A record of conda names the digest of a file, and is as it was when that file is another one or gone."""
    root = tmp_path / "env"
    (root / "conda-meta").mkdir(parents=True)
    large = f"{root}\n".encode() + b"line\n" * (1 << 20)
    (root / "large").write_bytes(large)
    row = {
        "_path": "large",
        "prefix_placeholder": str(root),
        "sha256_in_prefix": hashlib.sha256(large).hexdigest(),
    }
    record = {"name": "a", "version": "1", "paths_data": {"paths": [row]}}
    (root / "conda-meta" / "a-1-0.json").write_text(json.dumps(record))
    data, _ = packed(root)
    home = put(data, tmp_path / "elsewhere")
    assert drift(home, io.BytesIO(data)) == []
    (home / "large").unlink()
    if code == "env-changed":
        (home / "large").write_bytes(b"other")
    assert [(f.code, f.subject) for f in drift(home, io.BytesIO(data))] == [(code, "large")]


def test_a_lost_interpreter_is_drift(venv: tuple[Path, bytes], tmp_path: Path) -> None:
    """A virtual environment whose interpreter went away is told as that."""
    home = put(venv[1], tmp_path / "home", _python())
    (home / "bin" / "python").unlink()
    assert "env-python" in {finding.code for finding in drift(home, io.BytesIO(venv[1]))}


# Conda environments, with conda-pack as the judge


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Path]:
    """Where a conda environment was, its archive, and what conda-pack made of it; it is not there any more."""
    folder = tmp_path_factory.mktemp("conda")
    root = make_conda_env(folder / "old" / "env", folder)
    data, told = packed(root)
    assert told.manifest.flavour == "conda"
    theirs = folder / "theirs.tar"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conda_pack.CondaEnv.from_prefix(str(root)).pack(output=str(theirs), format="tar")
    root.rename(folder / "gone")
    return root, data, theirs


def _unpacked_by_conda_pack(theirs: Path, home: Path) -> Path:
    home.mkdir(parents=True)
    subprocess.run(["tar", "-xf", theirs, "-C", home], check=True)
    _runs(home / "bin" / "python", "-B", str(home / "bin" / "conda-unpack"))
    return home


def test_a_conda_environment_runs_where_it_was_put(conda: tuple[Path, bytes, Path], tmp_path: Path) -> None:
    """A program, a script and Python know the new place, longer than the old one, with the original gone."""
    old, data, _ = conda
    home = put(data, tmp_path / ("longer" * 10) / "env")
    assert len(str(home)) > len(str(old))
    assert _runs(home / "bin" / "where") == str(home)
    assert _runs(home / "bin" / "tqdm", "--version")
    told = "import sys, sysconfig; print(sys.prefix, sysconfig.get_config_var('prefix'))"
    assert _runs(home / "bin" / "python", "-B", "-c", told) == f"{home} {home}"
    assert drift(home, io.BytesIO(data)) == []
    named = [p for p in home.rglob("*") if p.is_file() and f"{old}/".encode() in p.read_bytes()]
    assert named == []


def test_records_agree_with_the_files_after_a_move(conda: tuple[Path, bytes, Path], tmp_path: Path) -> None:
    """rattler reads every record, and each file has the digest that its record says."""
    home = put(conda[1], tmp_path / "home")
    compared = 0
    for place in sorted((home / "conda-meta").glob("*.json")):
        assert PrefixRecord.from_path(place).files
        for row in json.loads(place.read_bytes())["paths_data"]["paths"]:
            if row["path_type"] != "softlink":
                want = row.get("sha256_in_prefix") or row["sha256"]
                assert hashlib.sha256((home / row["_path"]).read_bytes()).hexdigest() == want, row
                compared += 1
    assert compared > 500


def test_conda_pack_makes_the_same_of_it(conda: tuple[Path, bytes, Path], tmp_path: Path) -> None:
    """Moved by the conda-pack library and by us, an environment is the same but for what that adds."""
    home = tmp_path / "home"
    theirs = tree(_unpacked_by_conda_pack(conda[2], home))
    home.rename(tmp_path / "theirs")
    ours = tree(put(conda[1], home))
    added = {
        f"bin/{name}"
        for name in ("activate", "activate.fish", "deactivate", "conda-unpack", "conda_unpack_progress.py")
    }
    assert set(theirs) - set(ours) == added
    assert set(ours) - set(theirs) == set()
    for name, told in ours.items():
        if told[0] == "folder" or name.startswith("conda-meta/"):
            continue
        if name in ("bin/tqdm", "bin/where-text"):
            # conda-pack leaves the first line of scripts to whatever PATH finds.
            mine, other = told[-1], theirs[name][-1]
            assert isinstance(mine, bytes)
            assert isinstance(other, bytes)
            assert mine.partition(b"\n")[2] == other.partition(b"\n")[2]
            continue
        assert told[0] == theirs[name][0], name
        assert told[-1] == theirs[name][-1], name


def test_a_conda_environment_moves_twice_and_to_a_shorter_place(
    conda: tuple[Path, bytes, Path], tmp_path: Path
) -> None:
    """The room of a program is that of its package, not that of the path it had last."""
    home = put(conda[1], tmp_path / "h")
    again, told = packed(home)
    (where,) = (o for o in told.manifest.occurrences if o.path == "bin/where")
    assert where.room == 255
    home.rename(tmp_path / "gone")
    second = put(again, tmp_path / ("x" * (254 - len(str(tmp_path)))))
    assert len(str(second)) == 255
    assert _runs(second / "bin" / "where") == str(second)
    with pytest.raises(PrefixError) as caught:
        restore(io.BytesIO(again), second, Path(f"{second}x"))
    assert caught.value.findings[0].code == "prefix-long"


def test_what_pip_did_to_conda_is_told(conda: tuple[Path, bytes, Path], tmp_path: Path) -> None:
    """Files of a package that are gone or altered are named by package, and do not keep it from travelling."""
    home = put(conda[1], tmp_path / "home")
    site = next(home.glob("lib/python3.*/site-packages"))
    (site / "tqdm" / "std.py").write_text(f"# altered in {home}\n")
    (site / "tqdm" / "auto.py").unlink()
    (home / "conda-meta" / "broken.json").write_text("{")
    told = scan(home)
    assert {f.subject.partition(" ")[0] for f in told.findings} == {"tqdm", "conda-meta/broken.json"}
    assert {(f.code, f.blocking) for f in told.findings} == {("prefix-changed", False)}
    message = next(f.message for f in told.findings if f.subject.startswith("tqdm"))
    assert "1 file is gone" in message
    assert "1 file is altered" in message
    assert "auto.py" in message
    # What was altered is carried and rewritten as it is now.
    assert any(o.path.endswith("tqdm/std.py") for o in told.manifest.occurrences)


def test_an_edit_that_kept_the_size_is_found_while_packing(
    conda: tuple[Path, bytes, Path], tmp_path: Path
) -> None:
    """A file that was believed, and is another one, is told and rewritten like any that was altered."""
    home = put(conda[1], tmp_path / "home")
    place = next(home.glob("lib/python3.*/site-packages/tqdm/std.py"))
    text = f"# altered in {home}\n".encode()
    place.write_bytes(text.ljust(place.stat().st_size, b"#"))
    first = scan(home)
    assert first.findings == ()
    assert str(place.relative_to(home)) in first.believed
    data, told = packed(home)
    (finding,) = told.findings
    assert finding.code == "prefix-changed"
    assert "std.py" in finding.message
    again = put(data, tmp_path / "again")
    assert f"altered in {again}\n" in (again / place.relative_to(home)).read_text()
    assert archive.inspect(io.BytesIO(data))[1] == []


def test_a_file_as_its_package_brought_it_is_not_touched(
    conda: tuple[Path, bytes, Path], tmp_path: Path
) -> None:
    """What looks like the path in a file that any environment has is no path of this one."""
    home = put(conda[1], tmp_path / "home")
    record = next((home / "conda-meta").glob("tqdm-*.json"))
    told = json.loads(record.read_bytes())
    row = next(row for row in told["paths_data"]["paths"] if row["_path"].endswith("tqdm/std.py"))
    text = f"# see {home}/share\n".encode()
    (home / row["_path"]).write_bytes(text)
    row["sha256"] = hashlib.sha256(text).hexdigest()
    record.write_text(json.dumps(told))
    assert not any(o.path == row["_path"] for o in scan(home).manifest.occurrences)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@conda.example.org/main/noarch/a-1-0.conda",
        "https://conda.example.org/t/hunter2/main",
    ],
)
def test_a_login_in_a_record_does_not_travel(tmp_path: Path, url: str) -> None:
    """A record of conda's that holds a password or a token blocks, and the finding does not repeat it."""
    meta = tmp_path / "env" / "conda-meta"
    meta.mkdir(parents=True)
    (meta / "history").touch()
    (meta / "a-1-0.json").write_text(json.dumps({"name": "a", "version": "1", "url": url}))
    (finding,) = [f for f in scan(tmp_path / "env").findings if f.code == "secret-found"]
    assert finding.blocking
    assert "hunter2" not in str(finding)
