"""Bundles as one tar: over a one-way link, cut off, tampered with, and as other programs write them."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from haversack.errors import (
    FormatError,
    HaversackError,
    IncompleteError,
    IntegrityError,
    RollbackError,
)
from haversack.formats import tar
from haversack.ports.media import TarStream, TarWriter
from haversack.verbs import pack
from haversack.verbs.receive import receive
from tests.support.gate import (
    Outcome,
    forged,
    ordered,
    refused,
    run,
    state,
    tarred,
    unchanged,
)
from tests.support.tiny import Tiny, command, environ, inside, outside, tiny_bundle

BLOCK = 512
GNU, PAX = tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
_ZEROS = bytes(1 << 20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle of one volume."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle of several volumes with parts of a wheel."""
    return tiny_bundle(tmp_path_factory.mktemp("split"), padding=200_000, volume_size=200_000)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    inside(tmp_path / "inside")
    return tmp_path / "inside"


def _received(data: bytes, store: Path) -> Outcome:
    return run("receive", "-", store=store, stdin=data)


def _refused(data: bytes, store: Path, error: type[HaversackError], *words: str) -> None:
    """Neither verify nor receive takes a stream, and the store stays as it is."""
    for attempt in (["verify"], ["receive"], ["receive", "--dry-run"]):
        with unchanged(store):
            refused(run(*attempt, "-", store=store, stdin=data), error, *words)


def test_a_stream_is_the_bundle(split: Tiny, store: Path, tmp_path: Path) -> None:
    """The files of the folders as one tar give the same snapshot, the same blobs and the same bundle id."""
    data = tarred(ordered(split.bundle))
    assert run("verify", "-", "--json", store=store, stdin=data).value["id"] == split.packed.id
    outcome = _received(data, store)
    assert (outcome.code, outcome.err) == (0, "")
    other = tmp_path / "other"
    assert run("receive", split.bundle, store=other).code == 0
    blobs = [{n: d for n, d in state(place).items() if n.startswith("blobs/")} for place in (store, other)]
    assert blobs[0] == blobs[1]
    assert run("snapshots", "--json", store=store).value[0]["id"] == split.packed.bundle.snapshot


def test_pack_writes_the_stream_that_receive_reads(tmp_path: Path, store: Path) -> None:
    """What TarWriter writes, GNU tar unpacks to a bundle of folders, and receive takes as it comes."""
    made = tiny_bundle(tmp_path / "tiny", padding=200_000)
    raw = io.BytesIO()
    packed = pack.pack(
        made.lock,
        tmp_path / "tiny",
        outside(made.store),
        TarWriter(raw),
        rehearsing=False,
        volume_size=200_000,
    )
    assert len(packed.bundle.volumes) > 2
    data = raw.getvalue()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", unpacked], input=data, check=True)
    assert run("verify", unpacked, "--json", store=store).value["id"] == packed.id
    outcome = run("receive", "-", "--json", store=store, stdin=data)
    assert outcome.code == 0
    assert outcome.value["snapshot"] == made.packed.bundle.snapshot
    file = tmp_path / "bundle.tar"
    file.write_bytes(data)
    assert (
        run("receive", file, "--json", store=tmp_path / "other").value["snapshot"] == packed.bundle.snapshot
    )


def test_real_processes_pass_a_stream_through_a_pipe(tiny: Tiny, tmp_path: Path) -> None:
    """`cat bundle.tar | haversack receive -` as people type it, and a broken pipe is an error, not a traceback."""
    data = tarred(ordered(tiny.bundle))
    for cut, code in ((len(data), 0), (len(data) // 3, IncompleteError.exit_code)):
        done = subprocess.run(
            command("receive", "-"), input=data[:cut], env=environ(tmp_path / str(cut)), capture_output=True
        )
        assert done.returncode in {code, IntegrityError.exit_code} if code else done.returncode == 0
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_other_programs_are_read(kind: int, split: Tiny, store: Path) -> None:
    """The three dialects of tar, with folders among the files, are all the same bundle."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = list(ordered(split.bundle))
    folder = tarfile.TarInfo("volume-001/blobs")
    folder.type = tarfile.DIRTYPE
    members.insert(4, (folder, b""))
    outcome = _received(tarred(members, kind), store)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_stream_cut_off_anywhere_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Wherever the line drops, inside a header, in a file or between two, nothing is received."""
    whole = tarred(ordered(tiny.bundle))
    end = len(whole.rstrip(b"\0"))
    offsets = {
        *range(0, end, 997),
        *range(0, 4 * BLOCK, 61),
        *range(0, end, BLOCK),
        *range(1, end, 4 * BLOCK),
    }
    offsets |= {end - 1, end - BLOCK}
    site = inside(tmp_path / "inside")
    before = state(tmp_path / "inside")
    for offset in sorted(offsets):
        with pytest.raises(HaversackError) as caught:
            receive(TarStream(io.BytesIO(whole[:offset])), site)
        assert isinstance(caught.value, (IncompleteError, IntegrityError)), offset
        assert caught.value.findings, offset
        assert all(finding.remedy for finding in caught.value.findings)
    assert state(tmp_path / "inside") == before


def test_a_stream_without_its_end_mark_is_whole(tiny: Tiny, store: Path) -> None:
    """When only the zeros at the end are lost nothing of the bundle is."""
    whole = tarred(ordered(tiny.bundle))
    last = ordered(tiny.bundle)[-1][1]
    end = whole.rindex(last) + len(last)
    outcome = _received(whole[: end + -end % BLOCK], store)
    assert outcome.code == 0, outcome.err


def test_a_flipped_bit_anywhere_is_refused_or_harmless(tiny: Tiny, tmp_path: Path) -> None:
    """Of bits flipped all over a stream none makes a reader crash, and what is received is the true snapshot."""
    whole = tarred(ordered(tiny.bundle))
    chance = random.Random(7)
    end = len(whole.rstrip(b"\0"))
    refusals = 0
    for number in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8])):
            data[chance.randrange(end)] ^= 1 << chance.randrange(8)
        site = inside(tmp_path / "inside")
        try:
            done = receive(TarStream(io.BytesIO(bytes(data))), site, dry_run=True)
        except HaversackError:
            refusals += 1
        else:
            assert done.snapshot.id == tiny.packed.bundle.snapshot, number
    assert refusals > 200


def _header(name: str, kind: bytes, size: int = 0, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info, bytes(size)


STRANGERS: dict[str, tuple[tuple[str | tarfile.TarInfo, bytes], str]] = {
    "climbs": (("../evil", b"x"), "leaves its folder"),
    "climbs within": (("volume-001/../../evil", b"x"), "leaves its folder"),
    "absolute": (("/etc/passwd", b"x"), "leaves its folder"),
    "empty part": (("volume-001//README.txt", b"x"), "leaves its folder"),
    "backslash": (("volume-001\\..\\evil", b"x"), "leaves its folder"),
    "no volume": (("evil", b"x"), "leaves its folder"),
    "in no volume": (("volume-999/README.txt", b"x"), "[file-extra]"),
    "extra in a volume": (("volume-001/evil", b"x"), "[file-extra]"),
    "hidden": (("volume-001/.DS_Store", b"x"), "[file-extra]"),
    "a blob nobody named": (("volume-001/blobs/sha256/" + "a" * 64, b"x"), "[file-extra]"),
    "but for case": (("volume-001/readme.TXT", b"x"), "[file-extra]"),
    "volume but for case": (("VOLUME-001/README.txt", b"x"), "[file-extra]"),
    "a file again": (("volume-001/README.txt", b"other words"), "came twice"),
    "a manifest again": (("volume-001/bundle.json", b"{}"), "came twice"),
    "a link": (_header("volume-001/x", tarfile.SYMTYPE, link="/etc/passwd"), "is a link"),
    "a hard link": (_header("volume-001/x", tarfile.LNKTYPE, link="volume-001/bundle.json"), "is a link"),
    "a pipe": (_header("volume-001/x", tarfile.FIFOTYPE), "neither a file nor a folder"),
    "a device": (_header("volume-001/x", tarfile.CHRTYPE), "neither a file nor a folder"),
    "a name of 300 letters": (("volume-001/" + "x" * 300, b"x"), "[file-extra]"),
    "escape codes": (("volume-001/\x1b[2J", b"x"), "[file-extra]"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("place", ["end", "second", "between parts"])
def test_nothing_rides_along_in_a_stream(
    stranger: str, place: str, split: Tiny, store: Path, tmp_path: Path
) -> None:
    """A path that climbs, a link, a device or a spare file is found at the end, in front and between two parts."""
    member, words = STRANGERS[stranger]
    members: list[tuple[str | tarfile.TarInfo, bytes]] = list(ordered(split.bundle))
    parts = [number for number, (name, _) in enumerate(members) if "/parts/" in str(name)]
    at = {"end": len(members), "second": 1, "between parts": parts[1]}[place]
    if "again" in stranger and place == "second":
        at = len(members) // 2
    members.insert(at, member)
    with unchanged(store):
        outcome = _received(tarred(members), store)
    refused(outcome, IntegrityError, words)
    assert "\x1b" not in outcome.err


def test_a_link_in_place_of_a_file_is_refused(tiny: Tiny, store: Path) -> None:
    """A blob that comes as a link to another member is no blob."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = list(ordered(tiny.bundle))
    name = str(members[-1][0])
    members[-1] = _header(name, tarfile.LNKTYPE, link=str(members[-2][0]))
    _refused(tarred(members), store, IntegrityError, "is a link", "did not come")


@pytest.mark.parametrize(
    "name", ["README.txt", "SHA256SUMS", "VOLUME", "index.json", "bootstrap.sh", "oci-layout"]
)
def test_every_small_file_must_come_and_be_right(name: str, split: Tiny, store: Path) -> None:
    """A small file that does not come is missed, and one of other bytes is named."""
    members = ordered(split.bundle)
    without = [(path, data) for path, data in members if path != f"volume-002/{name}"]
    _refused(tarred(without), store, IncompleteError, f"volume-002/{name}: did not come")
    other = [(path, b"x" + data[1:] if path == f"volume-002/{name}" else data) for path, data in members]
    _refused(tarred(other), store, IntegrityError, f"volume-002/{name}: ")


def test_a_wheel_that_does_not_come_or_comes_wrong_is_named(split: Tiny, store: Path) -> None:
    """Lost, shortened, changed and exchanged pieces are each a finding with its place."""
    members = ordered(split.bundle)
    at = next(number for number, (name, _) in enumerate(members) if "/parts/" in name)
    name, data = members[at]
    lost = [*members[:at], *members[at + 1 :]]
    _refused(tarred(lost), store, IntegrityError, name)
    for other in (data[:-1], b"x" + data[1:], data + b"x", b""):
        _refused(tarred([*members[:at], (name, other), *members[at + 1 :]]), store, IntegrityError, name)
    last = len(members) - 1
    exchanged = [*members]
    exchanged[at], exchanged[last] = (name, members[last][1]), (members[last][0], data)
    _refused(tarred(exchanged), store, IntegrityError, name, members[last][0])


def test_everything_is_found_in_one_pass(split: Tiny, store: Path) -> None:
    """Several faults of one stream are several findings of one run."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [
        (name, b"x" + data[1:] if name.endswith(("volume-001/README.txt", "volume-003/index.json")) else data)
        for name, data in ordered(split.bundle)
        if name != "volume-002/VOLUME"
    ]
    members.insert(5, ("volume-001/evil", b""))
    members.append(_header("volume-001/link", tarfile.SYMTYPE, link="x"))
    _refused(
        tarred(members),
        store,
        IntegrityError,
        "volume-001/README.txt: ",
        "volume-003/index.json: ",
        "volume-002/VOLUME: did not come",
        "volume-001/evil: ",
        "volume-001/link: is a link",
    )


def test_the_manifest_comes_first(tiny: Tiny, store: Path) -> None:
    """A stream that begins with anything else is no stream of a bundle."""
    members = ordered(tiny.bundle)
    _refused(tarred(members[::-1]), store, IntegrityError, "does not begin with the manifest")
    _refused(tarred(members[1:]), store, IntegrityError, "does not begin with the manifest")
    for data in (b"", b"\0" * 10240, b"x" * 10240, b"PK\x03\x04" * 3000, tarred([])):
        _refused(data, store, IntegrityError, "stream")


def test_a_manifest_of_another_volume_name_is_not_taken(tiny: Tiny, store: Path) -> None:
    """The manifest must stand in the first volume, as pack writes it."""
    (_, data), *rest = ordered(tiny.bundle)
    _refused(tarred([("elsewhere/bundle.json", data), *rest]), store, IntegrityError, "elsewhere/bundle.json")


def test_bytes_after_the_end_are_found(tiny: Tiny, store: Path) -> None:
    """A second archive behind the end mark of the first does not ride along."""
    data = tarred(ordered(tiny.bundle))
    _refused(data + tarred([("volume-001/evil", b"x")]), store, IncompleteError, "bytes follow its end")
    _refused(data + bytes(200_000) + b"x", store, IncompleteError, "bytes follow its end")
    outcome = _received(data + bytes(200_000), store)
    assert outcome.code == 0, outcome.err


def _raw(name: str, kind: bytes, size: int, data: bytes = b"") -> bytes:
    """A header of tar with any size, and some data after it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % BLOCK)


def _pax(**records: str) -> bytes:
    lines = b""
    for key, value in records.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        lines += str(length).encode() + body
    return _raw("pax", tarfile.XHDTYPE, len(lines), lines)


TRICKS: dict[str, bytes] = {
    "a pax header of 8 GB": _raw("pax", tarfile.XHDTYPE, 1 << 33),
    "a long name of 8 GB": _raw("name", tarfile.GNUTYPE_LONGNAME, 1 << 33),
    "a file of 8 EB": _raw("volume-001/x", tarfile.REGTYPE, (1 << 63) - 1),
    "long names within long names": _raw("n", tarfile.GNUTYPE_LONGNAME, 5, b"name\0") * 3000,
    "a pax size that is no number": _pax(size="many") + _raw("volume-001/x", tarfile.REGTYPE, 0),
    "a negative pax size": _pax(size="-512") + _raw("volume-001/x", tarfile.REGTYPE, 0),
    "a sparse map of words": _pax(GNU__sparse__map="a,b", GNU__sparse__size="9") + _raw("x", b"0", 0),
    "a sparse file of 1 EB": _pax(
        GNU__sparse__major="0",
        GNU__sparse__minor="1",
        GNU__sparse__size=str(1 << 60),
        GNU__sparse__map=f"{1 << 60},0",
        GNU__sparse__name="volume-001/README.txt",
    )
    + _raw("volume-001/README.txt", b"0", 0),
    "sparse 1.0 with a bad map": _pax(GNU__sparse__major="1", GNU__sparse__minor="0") + _raw("x", b"0", 512, b"x\n" * 256),
    "pax records that overrun": _raw("pax", tarfile.XHDTYPE, 10, b"99 path=x\n"),
    "pax records of nothing": _raw("pax", tarfile.XHDTYPE, 10, b"0 path=xx\n"),
    "a pax path that climbs": _pax(path="../../evil") + _raw("volume-001/VOLUME", b"0", 1, b"x"),
    "a pax name that is no UTF-8": _raw("p", tarfile.XHDTYPE, 9, b"9 path=\xff\n") + _raw("x", b"0", 0),
    "a pax encoding nobody knows": _pax(hdrcharset="BINARY", path="x") + _raw("x", b"0", 0),
    "a volume header": _raw("label", b"V", 0),
    "a multi-volume rest": _raw("volume-001/x", b"M", 512, bytes(512)),
    "an unknown kind": _raw("volume-001/x", b"Z", 512, bytes(512)),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_headers_made_to_hurt_are_refused(trick: str, tiny: Tiny, store: Path) -> None:
    """A header that asks for all memory, all time or a crash of its reader is an error at once."""
    members = tarred(ordered(tiny.bundle)).rstrip(b"\0")
    members += bytes(-len(members) % BLOCK)
    first = BLOCK + len(ordered(tiny.bundle)[0][1])
    first += -first % BLOCK
    for data in (TRICKS[trick], members[:first] + TRICKS[trick] + members[first:] + bytes(1024)):
        with unchanged(store):
            outcome = _received(data, store)
        assert outcome.code in {IntegrityError.exit_code, IncompleteError.exit_code}, outcome
        assert "remedy: " in outcome.err


def test_comments_without_number_are_read_over(tiny: Tiny, store: Path) -> None:
    """Ten thousand extended headers before a file cost neither a stack nor an answer."""
    data = b"".join(_pax(comment="x") for _ in range(10_000)) + tarred(ordered(tiny.bundle))
    outcome = _received(data, store)
    assert (outcome.code, outcome.err) == (0, "")


def test_refusals_come_before_the_blobs(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """A newer format, another site and an older bundle are refused at the manifest, with the same exit codes."""
    newer = forged(tiny.bundle, tmp_path / "newer", lambda m: m.update({"haversack-bundle": "2.0"}))
    _refused(tarred(ordered(newer)), store, FormatError, "is of format 2.0")
    assert run("receive", tiny.bundle, store=store).code == 0
    other = forged(tiny.bundle, tmp_path / "other", lambda m: m.update(created="2026-01-01T00:00:00Z"))
    _refused(tarred(ordered(other)), store, RollbackError, "[bundle-older]")
    # The manifest alone is enough for it: nothing after it was read.
    with unchanged(store):
        refused(_received(tarred(ordered(other)[:1]), store), RollbackError, "[bundle-older]")


def test_a_stream_received_twice_is_received_once(tiny: Tiny, store: Path) -> None:
    """The second time changes nothing, whichever way the bundle comes."""
    data = tarred(ordered(tiny.bundle))
    assert _received(data, store).code == 0
    with unchanged(store):
        assert _received(data, store).code == 0
        assert run("receive", tiny.bundle, store=store).code == 0
    assert len(run("audit", "show", "--json", store=store).value) == 1


class _Endless(io.BytesIO):
    """A header, then nothing but zeros, for as long as anybody reads, of which none takes room."""

    def __init__(self, header: bytes) -> None:
        super().__init__(header)
        self._left = 9 << 30

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        assert size is not None
        self._left -= size
        return _ZEROS[:size] if self._left > -size else b""


class _Pipe(io.RawIOBase):
    """A pipe that gives a few bytes at a time, as pipes may."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data, self._sizes = io.BytesIO(data), random.Random(3)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._sizes.randrange(1, 700)))


def test_a_pipe_that_gives_little_at_a_time_is_read(split: Tiny, tmp_path: Path) -> None:
    """Short reads are not the end of anything."""
    pipe = _Pipe(tarred(ordered(split.bundle)))
    done = receive(TarStream(pipe), inside(tmp_path / "inside"))  # type: ignore[arg-type]
    assert done.snapshot.id == split.packed.bundle.snapshot


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_reader_agrees_with_the_standard_library(kind: int, tmp_path: Path) -> None:
    """Names of any length and sizes up to 8 GB and beyond are read as tarfile reads them."""
    names = ["a", "x" * 100, "d" * 90 + "/" + "f" * 90, "ümlaut/" + "y" * 80]
    if kind != tarfile.USTAR_FORMAT:
        names += ["z" * 300, "p" * 200 + "/" + "q" * 200]
    data = tarred([(name, name.encode() * 3) for name in names], kind)
    read = [(entry.name, b"".join(entry.chunks())) for entry in tar.entries(io.BytesIO(data))]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        told = [(m.name, found.read()) for m in archive if (found := archive.extractfile(m))]
    assert read == told
    assert len(read) == len(names)
    if kind != tarfile.USTAR_FORMAT:
        info = tarfile.TarInfo("large")
        info.size = 9 << 30
        (large,) = tar.entries(_Endless(info.tobuf(GNU if kind == GNU else PAX)))  # type: ignore[arg-type]
        assert large.size == 9 << 30


def test_tars_of_the_tar_program_are_read(tiny: Tiny, tmp_path: Path) -> None:
    """What GNU tar writes of a bundle's files in the order of a stream is a stream."""
    names = [name for name, _ in ordered(tiny.bundle)]
    for dialect in ("gnu", "ustar", "posix", "v7"):
        made = subprocess.run(
            ["tar", f"--format={dialect}", "-cf", "-", "-C", tiny.bundle, *names],
            check=True,
            capture_output=True,
        )
        outcome = _received(made.stdout, tmp_path / dialect)
        assert (outcome.code, outcome.err) == (0, ""), dialect
