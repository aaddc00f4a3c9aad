"""Bad bundles: each says what is wrong with it, where and what to do, and changes nothing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from haversack.errors import (
    HaversackError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    RollbackError,
    StoreError,
)
from haversack.formats.canonical import canonical
from tests.support.gate import (
    Outcome,
    copied,
    flip,
    forged,
    manifest,
    refused,
    replace,
    reseal,
    run,
    state,
    unchanged,
    volumes,
)
from tests.support.tiny import Tiny, haversack, tiny_bundle


@dataclass(frozen=True)
class Gate:
    """A site that holds 2026-10, and the bundle of 2026-11 that comes next: three volumes, nothing split."""

    store: Path
    first: Tiny
    second: Tiny


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """The site, received into once; no test may write to it."""
    folder = tmp_path_factory.mktemp("gate")
    first = tiny_bundle(folder / "first", name="2026-10")
    shutil.copytree(first.store, folder / "second" / "outside")
    second = tiny_bundle(
        folder / "second", names=("alpha==1.1", "beta==1.1"), padding=60_000, volume_size=65_536 + 65_000
    )
    assert len(second.packed.bundle.volumes) == 3
    store = folder / "inside"
    assert run("receive", first.bundle, store=store).code == 0
    return Gate(store, first, second)


@pytest.fixture
def store(gate: Gate, tmp_path: Path) -> Path:
    """A store of one test's own."""
    return copied(gate.store, tmp_path / "inside")


def _attempts(bundle: Path, store: Path) -> list[Outcome]:
    """Verify, receive and a dry run of it; the store must be the same after each, and 2026-10 current."""
    words: list[tuple[str, ...]] = [
        ("verify",),
        ("receive",),
        ("receive", "--dry-run"),
        ("receive", "--copy"),
    ]
    outcomes = []
    for attempt in words:
        with unchanged(store):
            outcomes.append(run(*attempt, bundle, store=store))
    listed = run("snapshots", "--json", store=store).value
    assert [(s["name"], s["current"]) for s in listed] == [("2026-10", True)]
    return outcomes


def _first(bundle: Path, pattern: str) -> Path:
    return min(path for volume in volumes(bundle) for path in volume.glob(pattern))


def _wheel(bundle: Path) -> Path:
    """The one large file of the second volume."""
    (found,) = (volumes(bundle)[1] / "blobs" / "sha256").iterdir()
    return found


def _rename_blob(bundle: Path) -> None:
    wheel = _wheel(bundle)
    wheel.rename(wheel.with_name("0" * 64))


def _swap_blobs(bundle: Path) -> None:
    one = _wheel(bundle)
    (other,) = (volumes(bundle)[2] / "blobs" / "sha256").iterdir()
    data = one.read_bytes()
    replace(one, other.read_bytes())
    replace(other, data)


def _as_symlink(bundle: Path) -> None:
    wheel = _wheel(bundle)
    elsewhere = bundle.parent / "elsewhere"
    shutil.copy(wheel, elsewhere)
    wheel.unlink()
    wheel.symlink_to(elsewhere)


def _as_folder(bundle: Path) -> None:
    wheel = _wheel(bundle)
    wheel.unlink()
    wheel.mkdir()


def _as_fifo(bundle: Path) -> None:
    wheel = _wheel(bundle)
    wheel.unlink()
    os.mkfifo(wheel)


def _as_device(bundle: Path) -> None:
    wheel = _wheel(bundle)
    wheel.unlink()
    try:
        os.mknod(wheel, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def _folder_as_symlink(bundle: Path) -> None:
    blobs = volumes(bundle)[1] / "blobs"
    blobs.rename(bundle.parent / "elsewhere")
    blobs.symlink_to(bundle.parent / "elsewhere")


def _volume_as_symlink(bundle: Path) -> None:
    volume = volumes(bundle)[1]
    volume.rename(bundle.parent / "elsewhere")
    volume.symlink_to(bundle.parent / "elsewhere")


def _extra(*parts: str) -> Callable[[Path], None]:
    def bend(bundle: Path) -> None:
        place = bundle.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"nobody asked for this")

    return bend


def _undecodable(bundle: Path) -> None:
    (volumes(bundle)[0] / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"latin")


def _same_again(bundle: Path) -> None:
    one, two, _ = volumes(bundle)
    shutil.rmtree(two)
    shutil.copytree(one, two)


def _swapped_label(bundle: Path) -> None:
    one, two, _ = volumes(bundle)
    replace(one / "VOLUME", (two / "VOLUME").read_bytes())


def _flip_all(bundle: Path) -> None:
    for volume in volumes(bundle):
        flip(volume / "bundle.json", 40)


V1 = "volume-001"
BENT: dict[str, tuple[Callable[[Path], object], type[HaversackError], tuple[str, ...]]] = {
    "bit in a wheel": (lambda b: flip(_wheel(b)), IntegrityError, ("volume-002/blobs/", "[blob-damaged]")),
    "bit in metadata": (
        lambda b: flip(_first(b, "blobs/sha256/*")),
        IntegrityError,
        ("volume-001/blobs/", "[blob-damaged]"),
    ),
    "bit in one manifest": (
        lambda b: flip(b / V1 / "bundle.json"),
        IntegrityError,
        ("volume-001/bundle.json", "[manifest-damaged]"),
    ),
    "bit in every manifest": (
        _flip_all,
        IntegrityError,
        ("volume-001/SHA256SUMS: does not agree with bundle.json",),
    ),
    "bit in SHA256SUMS": (
        lambda b: flip(b / V1 / "SHA256SUMS", 3),
        IntegrityError,
        ("volume-001/SHA256SUMS", "[file-damaged]"),
    ),
    "bit in a path of SHA256SUMS": (
        lambda b: flip(b / V1 / "SHA256SUMS", 70),
        IntegrityError,
        ("volume-001/SHA256SUMS", "[file-damaged]"),
    ),
    "line gone from SHA256SUMS": (
        lambda b: replace(
            b / V1 / "SHA256SUMS", b"".join((b / V1 / "SHA256SUMS").read_bytes().splitlines(True)[1:])
        ),
        IntegrityError,
        ("volume-001/SHA256SUMS", "[file-damaged]"),
    ),
    "empty SHA256SUMS": (
        lambda b: replace(b / V1 / "SHA256SUMS", b""),
        IntegrityError,
        ("volume-001/SHA256SUMS",),
    ),
    "bit in README": (
        lambda b: flip(b / V1 / "README.txt"),
        IntegrityError,
        ("volume-001/README.txt", "[file-damaged]"),
    ),
    "bit in bootstrap.sh": (
        lambda b: flip(b / V1 / "bootstrap.sh"),
        IntegrityError,
        ("volume-001/bootstrap.sh", "[file-damaged]"),
    ),
    "bit in index.json": (
        lambda b: flip(b / "volume-003" / "index.json"),
        IntegrityError,
        ("volume-003/index.json", "[file-damaged]"),
    ),
    "bit in oci-layout": (
        lambda b: flip(b / V1 / "oci-layout"),
        IntegrityError,
        ("volume-001/oci-layout", "[file-damaged]"),
    ),
    "bit in VOLUME": (lambda b: flip(b / V1 / "VOLUME", 0), IntegrityError, ("volume-001/VOLUME",)),
    "another volume's label": (_swapped_label, IntegrityError, ("volume-001/VOLUME",)),
    "no manifest on one volume": (
        lambda b: (b / V1 / "bundle.json").unlink(),
        IncompleteError,
        ("volume-001/bundle.json", "[blob-missing]"),
    ),
    "no README": (
        lambda b: (b / V1 / "README.txt").unlink(),
        IncompleteError,
        ("volume-001/README.txt", "[blob-missing]"),
    ),
    "no SHA256SUMS": (
        lambda b: (b / V1 / "SHA256SUMS").unlink(),
        IncompleteError,
        ("volume-001/SHA256SUMS", "[blob-missing]"),
    ),
    "no wheel": (
        lambda b: _wheel(b).unlink(),
        IncompleteError,
        ("volume-002/blobs/", "[blob-missing]"),
    ),
    "no volume": (
        lambda b: shutil.rmtree(volumes(b)[1]),
        IncompleteError,
        ("volume-002: was not given", "[volume-missing]"),
    ),
    "no first volume": (
        lambda b: shutil.rmtree(volumes(b)[0]),
        IncompleteError,
        ("volume-001: was not given", "[volume-missing]"),
    ),
    "truncated wheel": (
        lambda b: replace(_wheel(b), _wheel(b).read_bytes()[:-7]),
        IntegrityError,
        ("volume-002/blobs/", "bytes instead of"),
    ),
    "empty wheel": (lambda b: replace(_wheel(b), b""), IntegrityError, ("has 0 bytes instead of",)),
    "longer wheel": (
        lambda b: replace(_wheel(b), _wheel(b).read_bytes() + b"!"),
        IntegrityError,
        ("bytes instead of",),
    ),
    "a name that lies": (_rename_blob, IntegrityError, ("0" * 64, "[file-extra]", "[blob-missing]")),
    "two names exchanged": (_swap_blobs, IntegrityError, ("volume-002/blobs", "volume-003/blobs")),
    "wheel is a link": (_as_symlink, IntegrityError, ("is a symbolic link", "[path-unsafe]")),
    "wheel is a folder": (_as_folder, IncompleteError, ("[blob-missing]",)),
    "wheel is a pipe": (_as_fifo, IntegrityError, ("neither a file nor a folder",)),
    "wheel is a device": (_as_device, IntegrityError, ("neither a file nor a folder",)),
    "blobs is a link": (_folder_as_symlink, IntegrityError, ("volume-002/blobs", "is a symbolic link")),
    "volume is a link": (_volume_as_symlink, IntegrityError, ("volume-002", "is a symbolic link")),
    "extra beside the volumes": (_extra("autorun.inf"), IntegrityError, ("autorun.inf", "[file-extra]")),
    "hidden beside the volumes": (_extra(".DS_Store"), IntegrityError, (".DS_Store", "[file-extra]")),
    "hidden folder beside the volumes": (
        _extra(".Spotlight-V100", "x"),
        IntegrityError,
        (".Spotlight-V100", "[file-extra]"),
    ),
    "extra in a volume": (_extra(V1, "evil.exe"), IntegrityError, ("volume-001/evil.exe", "[file-extra]")),
    "extra hidden in a volume": (_extra(V1, ".DS_Store"), IntegrityError, (".DS_Store", "[file-extra]")),
    "extra blob": (_extra(V1, "blobs", "sha256", "a" * 64), IntegrityError, ("a" * 64, "[file-extra]")),
    "extra in blobs": (_extra(V1, "blobs", "._x"), IntegrityError, ("blobs/._x", "[file-extra]")),
    "extra that differs in case": (_extra(V1, "readme.txt"), IntegrityError, ("volume-001/readme.txt",)),
    "name that is no text": (_undecodable, IntegrityError, ("caf", "[file-extra]")),
    "first volume in place of the second": (
        _same_again,
        IncompleteError,
        ("volume-002", "[volume-missing]", "[volume-duplicate]"),
    ),
}


@pytest.mark.parametrize("bend", BENT)
def test_a_bent_bundle_is_refused_and_changes_nothing(
    bend: str, gate: Gate, store: Path, tmp_path: Path
) -> None:
    """Whatever is wrong with a volume has its place, its remedy and its exit code, and the store stays as it is."""
    action, error, words = BENT[bend]
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    action(bundle)
    for outcome in _attempts(bundle, store):
        refused(outcome, error, *words)


@pytest.mark.parametrize("bend", BENT)
def test_json_tells_scripts_the_same(bend: str, gate: Gate, store: Path, tmp_path: Path) -> None:
    """With --json the one value on standard output has the exit code and every finding with its remedy."""
    action, error, _ = BENT[bend]
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    action(bundle)
    outcome = run("verify", bundle, "--json", store=store)
    assert outcome.code == outcome.value["exit_code"] == error.exit_code
    blocking = [finding for finding in outcome.value["findings"] if finding["blocking"]]
    assert blocking
    assert all(finding["remedy"] and finding["subject"] for finding in blocking)


def test_everything_is_found_at_once(gate: Gate, store: Path, tmp_path: Path) -> None:
    """Six faults of six kinds are six findings of one run, and the worst of them gives the exit code."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    one, two, three = volumes(bundle)
    flip(one / "README.txt")
    (one / "index.json").unlink()
    flip(_wheel(bundle))
    (two / "spare").write_bytes(b"")
    flip(three / "SHA256SUMS", 3)
    (three / "link").symlink_to("/etc/passwd")
    for outcome in _attempts(bundle, store):
        refused(outcome, IntegrityError)
        for place in (
            "volume-001/README.txt: ",
            "volume-001/index.json: is not there",
            f"volume-002/blobs/sha256/{_wheel(bundle).name}: ",
            "volume-002/spare: ",
            "volume-003/SHA256SUMS: ",
            "volume-003/link: ",
        ):
            assert outcome.err.count(place) == 1, (place, outcome.err)


def test_one_fault_is_one_finding(gate: Gate, store: Path, tmp_path: Path) -> None:
    """One flipped bit is told once, not by everything that depends on it."""
    for number, path in enumerate(["bundle.json", "README.txt", "SHA256SUMS", "blobs/sha256/*"]):
        bundle = copied(gate.second.bundle, tmp_path / f"bent{number}")
        flip(_first(bundle, path))
        outcome = run("verify", bundle, "--json", store=store)
        assert len(outcome.value["findings"]) == 1, outcome.out


def test_volumes_come_in_any_order(gate: Gate, store: Path) -> None:
    """The folders of the volumes may be given one by one, backwards."""
    outcome = run("receive", *reversed(volumes(gate.second.bundle)), store=store)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_second_copy_of_a_volume_is_only_noted(gate: Gate, store: Path, tmp_path: Path) -> None:
    """The same volume twice is a note, and the bundle is received."""
    spare = copied(volumes(gate.second.bundle)[1], tmp_path / "spare" / "volume-002")
    outcome = run("receive", gate.second.bundle, spare, store=store)
    assert outcome.code == 0
    assert "is volume-002 again" in outcome.err


def test_of_two_copies_of_a_volume_the_good_files_count(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A damaged wheel, README and manifest are made good by another copy of their volume."""
    for number, path in enumerate(["blobs/sha256/*", "README.txt", "bundle.json", "SHA256SUMS", "VOLUME"]):
        bundle = copied(gate.second.bundle, tmp_path / f"bent{number}")
        flip(next(volumes(bundle)[1].glob(path)))
        own = copied(store, tmp_path / f"store{number}")
        assert run("verify", bundle, store=own).code != 0
        outcome = run("receive", bundle, volumes(gate.second.bundle)[1], store=own)
        assert outcome.code == 0, (path, outcome.err)


def test_a_volume_of_another_bundle_is_named(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A volume that belongs elsewhere is told from a damaged one, and the lost one is missed."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    shutil.rmtree(volumes(bundle)[2])
    shutil.copytree(volumes(gate.first.bundle)[0], bundle / "volume-003")
    for outcome in _attempts(bundle, store):
        refused(
            outcome, IntegrityError, "volume-003: belongs to bundle", "[volume-foreign]", "[volume-missing]"
        )


def test_folders_that_are_no_bundle_are_not_found(store: Path, tmp_path: Path) -> None:
    """A path that is absent, an empty folder and a file that is no tar are each told apart from a bad bundle."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 3000)
    for attempt in ("verify", "receive"):
        refused(run(attempt, tmp_path / "absent", store=store), NotFoundError, "absent")
        refused(run(attempt, tmp_path / "empty", store=store), NotFoundError, "empty")
        refused(run(attempt, tmp_path / "file", store=store), IntegrityError, "no tar")


def test_an_older_bundle_is_refused(gate: Gate, store: Path) -> None:
    """After 2026-11 the bundle of 2026-10 does not come in again, and the remedy names `use`."""
    assert run("receive", gate.second.bundle, store=store).code == 0
    for attempt in ("verify", "receive"):
        with unchanged(store):
            outcome = run(attempt, gate.first.bundle, store=store)
        refused(outcome, RollbackError, "number 1", "number 2 was received before", "haversack use NAME")


def test_the_same_number_on_another_bundle_is_refused(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A second bundle of number 1 is not what was received as number 1."""
    bundle = forged(gate.first.bundle, tmp_path / "bent", lambda m: m.update(created="2026-01-01T00:00:00Z"))
    for attempt in ("verify", "receive"):
        with unchanged(store):
            refused(run(attempt, bundle, store=store), RollbackError, "number 1", "[bundle-older]")


def test_a_bundle_for_another_site_is_refused(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A store holds one site; both are named, and verify says the same as receive."""
    bundle = forged(gate.second.bundle, tmp_path / "bent", lambda m: m.update(site="elsewhere"))
    for outcome in _attempts(bundle, store):
        refused(outcome, StoreError, "'elsewhere'", "'tiny'")


def test_receiving_twice_is_receiving_once(gate: Gate, store: Path) -> None:
    """The second time nothing changes, also not in the ledger."""
    first = run("receive", gate.second.bundle, "--json", store=store)
    assert first.value["changed"] is True
    with unchanged(store):
        again = run("receive", gate.second.bundle, "--json", store=store)
    assert again.value["changed"] is False
    acts = [entry["act"] for entry in run("audit", "show", "--json", store=store).value]
    assert acts == ["receive", "receive"]


def test_a_dry_run_changes_nothing(gate: Gate, store: Path) -> None:
    """A dry run of a good bundle succeeds and leaves every byte of the store."""
    with unchanged(store):
        outcome = run("receive", "--dry-run", gate.second.bundle, store=store)
    assert outcome.code == 0
    assert "would be received" in outcome.out


def test_a_bundle_is_never_written_to(gate: Gate, store: Path, tmp_path: Path) -> None:
    """Verify and receive leave the medium as it was, and the store does not change with it afterwards."""
    bundle = copied(gate.second.bundle, tmp_path / "medium")
    before = state(bundle)
    assert run("verify", bundle, store=store).code == 0
    assert run("receive", bundle, store=store).code == 0
    assert state(bundle) == before
    held = state(store)
    for path in bundle.rglob("*"):
        if path.is_file():
            replace(path, b"written over")
    assert state(store) == held


def test_a_real_process_shows_no_traceback(gate: Gate, store: Path, tmp_path: Path) -> None:
    """What a person at a terminal sees of a damaged bundle is findings, remedies and an exit code."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    flip(_wheel(bundle))
    _undecodable(bundle)
    for words in (("verify",), ("receive",), ("verify", "--json")):
        done = haversack(*words, bundle, store=store)
        assert done.returncode == IntegrityError.exit_code
        assert "Traceback" not in done.stdout + done.stderr
        assert "file-extra" in done.stdout + done.stderr


def test_control_characters_of_strangers_do_not_reach_the_terminal(
    gate: Gate, store: Path, tmp_path: Path
) -> None:
    """A file name or a site name cannot move the cursor of whoever reads the error."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    (bundle / V1 / "\x1b]0;owned\x07\x1b[2J.txt").write_bytes(b"")
    outcome = run("verify", bundle, store=store)
    assert outcome.code == IntegrityError.exit_code
    assert "\x1b" not in outcome.err
    other = forged(gate.second.bundle, tmp_path / "other", lambda m: m.update(site="\x1b[31m\x9b2J\n"))
    outcome = run("verify", other, store=tmp_path / "nowhere")
    assert not {"\x1b", "\x9b"} & set(outcome.out + outcome.err)


def test_the_resend_list_of_a_missing_manifest_names_it(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A lost or damaged manifest, label or sum is on the list like everything else."""
    for number, name in enumerate(["bundle.json", "VOLUME", "SHA256SUMS", "README.txt", "index.json"]):
        for bend in (Path.unlink, flip):
            bundle = copied(gate.second.bundle, tmp_path / f"bent{number}{bend.__name__}")
            bend(bundle / V1 / name)
            listed = tmp_path / f"list{number}{bend.__name__}"
            assert run("verify", bundle, "--resend", listed, store=store).code != 0
            assert listed.read_text().splitlines()[1:] == [f"{V1}/{name}"]


def test_a_resend_list_that_cannot_be_written_says_so(gate: Gate, store: Path, tmp_path: Path) -> None:
    """A folder that is not there is an error with a remedy."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    flip(_wheel(bundle))
    outcome = run("verify", bundle, "--resend", tmp_path / "no" / "where", store=store)
    assert outcome.code not in (0, IntegrityError.exit_code)
    assert "no/where" in outcome.err


@pytest.fixture
def medium() -> Iterator[Path]:
    """A folder that others than its owner may look into, which pytest's own may not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    """Be somebody whom permissions concern."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("blobs/sha256", IntegrityError),
        ("blobs/sha256/*", IntegrityError),
        ("bundle.json", IntegrityError),
        ("README.txt", IntegrityError),
        ("SHA256SUMS", IntegrityError),
        ("VOLUME", IntegrityError),
        ("", NotFoundError),
    ],
)
def test_what_may_not_be_read_is_named(
    place: str, error: type[HaversackError], gate: Gate, medium: Path, tmp_path: Path
) -> None:
    """A file or folder of the medium that its reader may not open is a finding with its name."""
    assert (
        run("verify", gate.second.bundle, store=tmp_path / "nowhere").code == 0
    )  # whatever is imported late
    bundle = copied(gate.second.bundle, medium / "bundle")
    closed = _first(bundle, place) if place else bundle
    closed.chmod(0)
    try:
        with _nobody():
            # Nor may the reader look for a store: pytest's folder is its owner's.
            outcome = run("verify", bundle, store=tmp_path / "nowhere")
    finally:
        closed.chmod(0o755)
    refused(outcome, error, str(closed))
    assert "Permission denied" in outcome.err


def test_a_store_that_may_not_be_entered_is_an_error(gate: Gate, medium: Path, tmp_path: Path) -> None:
    """At a closed door receive says which store, and verify goes without it."""
    bundle = copied(gate.second.bundle, medium / "bundle")
    closed = medium / "closed"
    closed.mkdir(mode=0o700)
    assert run("verify", bundle, store=tmp_path / "nowhere").code == 0  # whatever is imported late
    with _nobody():
        assert run("verify", bundle, store=closed / "store").code == 0
        for words in (["receive", str(bundle)], ["snapshots"], ["receipt"]):
            refused(
                run(*words, store=closed / "store"), StoreError, str(closed / "store"), "Permission denied"
            )


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_any_file_is_found(seed: int, gate: Gate, tmp_path: Path) -> None:
    """Whichever file of whichever volume has one bit flipped, verify refuses the bundle and names its volume."""
    chance = random.Random(seed)
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        replace(path, bytes(data))
        outcome = run("verify", bundle, store=tmp_path / "nowhere")
        refused(outcome, IntegrityError, path.relative_to(bundle).parts[0])
        replace(path, whole)
    assert run("verify", bundle, store=tmp_path / "nowhere").code == 0


def test_sums_that_agree_do_not_make_a_bundle_right(gate: Gate, store: Path, tmp_path: Path) -> None:
    """Whoever changes a wheel and mends SHA256SUMS is still found out by the manifest."""
    bundle = copied(gate.second.bundle, tmp_path / "bent")
    flip(_wheel(bundle))
    reseal(volumes(bundle)[1])
    for outcome in _attempts(bundle, store):
        refused(outcome, IntegrityError, "[blob-damaged]")


def test_the_manifest_is_the_identity(gate: Gate, tmp_path: Path) -> None:
    """The bundle's id is the SHA-256 of its manifest, which is canonical."""
    value = manifest(gate.second.bundle)
    data = (volumes(gate.second.bundle)[0] / "bundle.json").read_bytes()
    assert canonical(value) == data
    outcome = run("verify", gate.second.bundle, "--json", store=tmp_path / "nowhere")
    assert outcome.value["id"] == gate.second.packed.id
