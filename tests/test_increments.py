"""Increments: only what the site lacks travels, and only where its base is held does it come in."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace as with_fields
from pathlib import Path

import pytest

from haversack import kinds
from haversack.errors import (
    BaseMissingError,
    FormatError,
    HaversackError,
    IntegrityError,
    NotFoundError,
    StoreError,
    UsageError,
)
from haversack.formats import declaration, lockfile
from haversack.formats import receipt as receipts
from haversack.formats.canonical import canonical
from haversack.model.artifact import digest_of
from haversack.ports.media import FolderWriter
from haversack.verbs import pack
from haversack.verbs.holdings import load
from tests.support.gate import flip, manifest, ordered, refused, replace, run, tarred, unchanged
from tests.support.tiny import Tiny, command, environ, inside, outside, tiny_bundle


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The full bundle of 2026-11: alpha and beta 1.0, of 100 kB each."""
    return tiny_bundle(tmp_path_factory.mktemp("first"), padding=100_000)


@pytest.fixture
def later(first: Tiny, tmp_path: Path) -> Tiny:
    """The increment of 2026-12 on it: beta is 1.1, alpha as it was."""
    fork = _fork(first, tmp_path / "fork")
    return tiny_bundle(
        tmp_path / "later", names=("alpha", "beta==1.1"), name="2026-12", base=fork, padding=100_000
    )


@pytest.fixture
def store(first: Tiny, tmp_path: Path) -> Path:
    """A site that holds 2026-11."""
    assert run("receive", first.bundle, store=tmp_path / "inside").code == 0
    return tmp_path / "inside"


def _fork(made: Tiny, to: Path) -> Tiny:
    """The same bundle with an outside store of one test's own."""
    shutil.copytree(made.store, to)
    return with_fields(made, store=to)


def _wheels(made: Tiny) -> set[str]:
    """Names of the wheels that travel in a bundle."""
    pieces = {piece["digest"] for volume in manifest(made.bundle)["volumes"] for piece in volume["pieces"]}
    return {artifact.filename for artifact in made.lock.artifacts if artifact.digest in pieces}


def _weight(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def test_an_unchanged_site_carries_no_wheel(first: Tiny, store: Path, tmp_path: Path) -> None:
    """An increment of the same lock is a few small files; it is received, and its snapshot is the same one."""
    again = tiny_bundle(
        tmp_path / "again", base=_fork(first, tmp_path / "fork"), padding=100_000, name="2026-12"
    )
    assert _wheels(again) == set()
    assert _weight(again.bundle) < 50_000
    assert again.packed.bundle.snapshot == first.packed.bundle.snapshot
    outcome = run("receive", again.bundle, "--json", store=store)
    assert outcome.code == 0
    assert outcome.value["name"] == "2026-11"
    assert [s["name"] for s in run("snapshots", "--json", store=store).value] == ["2026-11"]


def test_a_changed_site_carries_the_new_wheel_alone(first: Tiny, later: Tiny, store: Path) -> None:
    """Of two wheels only the one that changed travels; afterwards both snapshots are whole."""
    assert _wheels(first) == {"alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"}
    assert _wheels(later) == {"beta-1.1-py3-none-any.whl"}
    assert later.packed.bundle.base == first.packed.bundle.snapshot
    assert [(c.name, c.old, c.new) for c in later.packed.changes] == [("beta", "1.0", "1.1")]
    outcome = run("receive", later.bundle, store=store)
    assert (outcome.code, outcome.err) == (0, "")
    site = inside(store)
    for made in (first, later):
        blobs = load(site.store, made.packed.bundle.snapshot).blobs
        assert all(site.store.size(digest) == size for digest, size in blobs.items())
    listed = run("snapshots", "--json", store=store).value
    assert [(s["name"], s["current"]) for s in listed] == [("2026-11", False), ("2026-12", True)]


def test_an_increment_and_a_full_bundle_give_one_snapshot(later: Tiny, store: Path, tmp_path: Path) -> None:
    """What an increment brings is the snapshot that a full bundle of the same lock brings elsewhere."""
    full = tiny_bundle(tmp_path / "full", names=("alpha", "beta==1.1"), name="2026-12", padding=100_000)
    assert full.packed.bundle.snapshot == later.packed.bundle.snapshot
    assert run("receive", later.bundle, store=store).code == 0
    assert run("receive", full.bundle, store=tmp_path / "other").code == 0
    held = [
        [s["id"] for s in run("snapshots", "--json", store=place).value if s["current"]]
        for place in (store, tmp_path / "other")
    ]
    assert held[0] == held[1]


def test_without_its_base_an_increment_is_refused(later: Tiny, tmp_path: Path) -> None:
    """An empty site is told every blob that it lacks, and how to come by them; nothing is touched."""
    empty = tmp_path / "empty"
    inside(empty)
    requires = manifest(later.bundle)["requires"]
    assert requires
    for words in (["verify"], ["receive"], ["receive", "--dry-run"]):
        with unchanged(empty):
            outcome = run(*words, later.bundle, store=empty)
        refused(
            outcome, BaseMissingError, "receive the bundle of the base first", "haversack receipt", *requires
        )
        assert outcome.err.count("[base-missing]") == len(requires)
    with unchanged(empty):
        stream = tarred(ordered(later.bundle))
        refused(run("receive", "-", store=empty, stdin=stream), BaseMissingError, *requires)


def test_a_base_that_lost_one_blob_is_told_which(first: Tiny, later: Tiny, store: Path) -> None:
    """Only what is truly missing is printed, and the site's snapshot stays current."""
    (alpha,) = [a.digest for a in first.lock.artifacts if a.name == "alpha"]
    (store / "blobs" / "sha256" / alpha[7:]).unlink()
    for words in (["verify"], ["receive"]):
        with unchanged(store):
            outcome = run(*words, later.bundle, store=store)
        refused(outcome, BaseMissingError, f"{alpha}: is part of the base")
        assert outcome.err.count("[base-missing]") == 1


def test_a_base_of_another_lock_is_refused(later: Tiny, tmp_path: Path) -> None:
    """A site of the same name that holds something else is not the base."""
    wrong = tiny_bundle(tmp_path / "wrong", names=("gamma",), name="2026-11")
    store = tmp_path / "inside"
    assert run("receive", wrong.bundle, store=store).code == 0
    with unchanged(store):
        refused(run("receive", later.bundle, store=store), BaseMissingError, "[base-missing]")


def test_verify_without_a_store_checks_what_travels(later: Tiny, tmp_path: Path) -> None:
    """At the gate, where no store is, an increment is verified as far as it goes and says what it is."""
    outcome = run("verify", later.bundle, store=tmp_path / "nowhere")
    assert outcome.code == 0, outcome.err
    assert "an increment on sha256:" in outcome.out
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_base_is_not_built_upon(first: Tiny, later: Tiny, store: Path) -> None:
    """A wheel of the base that was cut short on disk is an error of the store, before anything is published."""
    (alpha,) = [a.digest for a in first.lock.artifacts if a.name == "alpha"]
    replace(store / "blobs" / "sha256" / alpha[7:], b"short")
    with unchanged(store):
        outcome = run("receive", later.bundle, store=store)
    refused(outcome, StoreError, f"{alpha}: has 5 bytes instead of", "haversack doctor --drop-damaged")


# --- receipts as bases ---------------------------------------------------------------------------------------


def _packed_on(made: Tiny, base: pack.Base, folder: Path) -> pack.Packed:
    return pack.pack(
        made.lock,
        made.wheels.parent,
        outside(made.store),
        FolderWriter(folder),
        base=base,
        name="2027-01",
        rehearsing=False,
    )


def test_a_receipt_is_a_base(first: Tiny, later: Tiny, store: Path, tmp_path: Path) -> None:
    """What the site says it holds is left out, also on a machine that never packed the base."""
    text = run("receipt", store=store).out.encode()
    receipt = receipts.read(text, "site.receipt")
    assert (receipt.site, receipt.name, receipt.sequence) == ("tiny", "2026-11", 1)
    assert set(receipt.blobs) == set(load(inside(store).store, receipt.snapshot).blobs)
    elsewhere = with_fields(later, store=tmp_path / "elsewhere")
    packed = _packed_on(elsewhere, pack.base_of_receipt(receipt), tmp_path / "bundle")
    assert (packed.bundle.sequence, packed.bundle.base) == (2, first.packed.bundle.snapshot)
    (beta,) = [a.digest for a in later.lock.artifacts if a.name == "beta"]
    wheels = {a.digest for a in later.lock.artifacts} & packed.bundle.sizes().keys()
    assert wheels == {beta}
    outcome = run("receive", tmp_path / "bundle", store=store)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_receipt_that_was_changed_is_refused(store: Path) -> None:
    """Cut off, edited, emptied or of a newer format: a receipt says so and how to get a new one."""
    text = run("receipt", store=store).out.encode()
    value = json.loads(text)
    edited = {key: item for key, item in value.items() if key != "digest"} | {"sequence": 0}
    newer = {key: item for key, item in value.items() if key != "digest"} | {"haversack-receipt": "2.0"}
    cases: list[tuple[bytes, type[HaversackError]]] = [
        *((text[:cut], IntegrityError) for cut in (0, 1, len(text) // 2, len(text) - 3)),
        (text.replace(b'"sequence":1', b'"sequence":0'), IntegrityError),
        (text.replace(value["blobs"][0].encode(), b"sha256:" + b"0" * 64), IntegrityError),
        (canonical(value | {"blobs": []}), IntegrityError),
        (canonical(edited), IntegrityError),
        (canonical(edited | {"digest": digest_of(canonical(edited)), "sequence": -1}), IntegrityError),
        (canonical(newer | {"digest": digest_of(canonical(newer))}), FormatError),
        (b"[]", IntegrityError),
        (b"\xff", IntegrityError),
        (text.replace(b'"site":"tiny"', b'"site":"\\ud800"'), IntegrityError),
        (text.replace(b'"sequence":1', b'"sequence":1e999'), IntegrityError),
    ]
    for data, error in cases:
        with pytest.raises(error) as caught:
            receipts.read(data, "site.receipt")
        assert caught.value.where.startswith("site.receipt")
        assert caught.value.remedy, data[:60]
    assert receipts.write(receipts.read(text, "site.receipt")) == text


def test_the_receipt_of_another_site_is_no_base(later: Tiny, tmp_path: Path) -> None:
    """A receipt of site 'elsewhere' must not thin out a bundle for site 'tiny'."""
    other = tiny_bundle(tmp_path / "other", site="elsewhere")
    assert run("receive", other.bundle, store=tmp_path / "there").code == 0
    receipt = receipts.read(run("receipt", store=tmp_path / "there").out.encode(), "site.receipt")
    with pytest.raises(UsageError, match="elsewhere") as caught:
        _packed_on(later, pack.base_of_receipt(receipt), tmp_path / "bundle")
    assert caught.value.remedy


def test_an_empty_site_has_no_receipt(tmp_path: Path) -> None:
    """There is nothing to build on, which is said with a remedy."""
    inside(tmp_path / "empty")
    refused(run("receipt", store=tmp_path / "empty"), NotFoundError, "holds no snapshot yet")


def test_strangers_among_the_blobs_are_not_in_a_receipt(store: Path) -> None:
    """A file that is no blob, where blobs lie, does not spoil the receipt or a prune."""
    (store / "blobs" / "sha256" / ".DS_Store").write_bytes(b"x")
    (store / "blobs" / "sha256" / "notes.txt").write_bytes(b"x")
    receipts.read(run("receipt", store=store).out.encode(), "site.receipt")
    assert run("prune", "--keep", "1", store=store).code == 0
    assert (store / "blobs" / "sha256" / "notes.txt").exists()


# --- snapshots as bases --------------------------------------------------------------------------------------


def test_a_snapshot_packed_before_is_a_base(first: Tiny, tmp_path: Path) -> None:
    """--base takes a name, a digest and the beginning of one; an unknown name lists those there are."""
    fork = outside(_fork(first, tmp_path / "fork").store)
    snapshot = first.packed.bundle.snapshot
    for name in ("2026-11", "current", snapshot, snapshot[7:19], snapshot[:19]):
        assert pack.base_of_snapshot(fork.store, name).snapshot == snapshot
    with pytest.raises(NotFoundError, match="no snapshot '2026-10'; the store holds 2026-11") as caught:
        pack.base_of_snapshot(fork.store, "2026-10")
    assert caught.value.remedy


def test_sequences_rise_whatever_the_base(first: Tiny, later: Tiny, store: Path, tmp_path: Path) -> None:
    """An increment that was not received can be followed by another on the same base: its number is higher."""
    assert (first.packed.bundle.sequence, later.packed.bundle.sequence) == (1, 2)
    base = pack.base_of_snapshot(outside(later.store).store, "2026-11")
    third = _packed_on(later, base, tmp_path / "third")
    assert third.bundle.sequence == 3
    assert run("receive", tmp_path / "third", store=store).code == 0
    with unchanged(store):
        assert run("receive", later.bundle, store=store).code == 11


# --- the whole of it, as people type it ------------------------------------------------------------------------


def _site(made: Tiny, folder: Path) -> Path:
    """A folder with a declaration, its lock and its wheels, to run `haversack pack` in."""
    folder.mkdir()
    shutil.copytree(made.wheels, folder / "wheels")
    (folder / "requirements.txt").write_text("".join(f"{root}\n" for root in made.lock.environments[0].roots))
    target = made.lock.targets[0]
    (folder / "haversack.toml").write_text(
        f'[site]\nname = "{made.lock.site}"\n'
        f'[target.here]\nplatform = "{target.platform}"\npython = "{target.python}"\nglibc = "{target.glibc}"\n'
        '[env.lab]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["here"]\n'
    )
    site = declaration.parse(folder / "haversack.toml", kinds.keys())
    (folder / "haversack.lock").write_bytes(lockfile.write(with_fields(made.lock, declaration=site.digest)))
    return folder


def test_pack_and_receive_as_people_type_them(first: Tiny, later: Tiny, tmp_path: Path) -> None:
    """Pack to a stream, receive it, take the receipt out, pack an increment, lose a file, and have it sent again."""
    out, store = tmp_path / "out", tmp_path / "inside"
    one = _site(first, tmp_path / "one")

    def call(*words: str | Path, cwd: Path = one, at: Path = out, stdin: bytes = b"") -> bytes:
        done = subprocess.run(command(*words), cwd=cwd, env=environ(at), input=stdin, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    stream = call("pack", "--no-rehearse", "--name", "2026-11", "-o", "-")
    call("receive", "-", at=store, stdin=stream)
    (tmp_path / "site.receipt").write_bytes(call("receipt", at=store))
    two = _site(later, tmp_path / "two")
    bundle = tmp_path / "bundle"
    said = call(
        *("pack", "--no-rehearse", "--name", "2026-12", "-o", bundle, "--base", tmp_path / "site.receipt"),
        *("--volume-size", "200kB"),
        cwd=two,
    )
    assert b"lab/here: beta 1.0 -> 1.1" in said
    wheel = max(bundle.rglob("*"), key=lambda path: path.stat().st_size)
    flip(wheel)
    refused(
        run("verify", bundle, "--resend", tmp_path / "list", store=store), IntegrityError, "[blob-damaged]"
    )
    call("pack", "--resend", tmp_path / "list", "-o", tmp_path / "fix", cwd=two)
    call("receive", bundle, tmp_path / "fix", at=store)
    assert [s["name"] for s in run("snapshots", "--json", store=store).value] == ["2026-11", "2026-12"]
    assert run("audit", "verify", store=store).code == run("audit", "verify", store=out).code == 0
    acts = [entry["act"] for entry in run("audit", "show", "--json", store=out).value]
    assert acts == ["pack", "pack", "resend"]


def test_a_lock_of_a_newer_format_is_refused(first: Tiny, tmp_path: Path) -> None:
    """A lock of format 2.0 is a FormatError of `haversack pack`, and nothing is written."""
    one = _site(first, tmp_path / "one")
    lock = one / "haversack.lock"
    lock.write_bytes(lock.read_bytes().replace(b'"haversack-lock": "1.0"', b'"haversack-lock": "2.0"'))
    outcome = run("pack", "-f", one / "haversack.toml", "-o", tmp_path / "bundle", store=tmp_path / "out")
    refused(outcome, FormatError, "haversack.lock: is of format 2.0")
    assert not list(tmp_path.glob("bundle/*"))
