"""Snapshots of a site: named, used, compared, counted and pruned; what serves stays whole throughout."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.errors import FormatError, IntegrityError, NotFoundError, StoreError, UsageError
from haversack.formats.canonical import canonical
from haversack.model.snapshot import diff, free_name
from haversack.verbs.holdings import load, read
from tests.support.gate import refused, replace, run, unchanged
from tests.support.tiny import Tiny, inside, tiny_bundle


@dataclass(frozen=True)
class Year:
    """A site that received five bundles, two of them in one month."""

    store: Path
    bundles: tuple[Tiny, ...]


NAMES = ("2026-10", "2026-11", "2026-11.2", "2026-12", "2027-01")
BETAS = ("beta==1.0", "beta==1.1", "beta==1.2", "beta==1.3", "beta==1.4")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """Five bundles on each other, alpha the same in all, beta another in each; received in turn."""
    folder = tmp_path_factory.mktemp("year")
    made: list[Tiny] = []
    for number, (name, beta) in enumerate(zip(NAMES, BETAS, strict=True)):
        asked = name.partition(".")[0]
        made.append(
            tiny_bundle(
                folder / str(number), names=("alpha", beta), name=asked, base=made[-1] if made else None
            )
        )
        assert run("receive", made[-1].bundle, store=folder / "inside").code == 0
    return Year(folder / "inside", tuple(made))


@pytest.fixture
def store(year: Year, tmp_path: Path) -> Path:
    """The site, for one test to change."""
    shutil.copytree(year.store, tmp_path / "inside")
    return tmp_path / "inside"


def _listed(store: Path) -> list[tuple[str, bool]]:
    return [(s["name"], s["current"]) for s in run("snapshots", "--json", store=store).value]


def _whole(store: Path) -> None:
    """Every snapshot that is listed has all of its blobs, with the bytes that their digests name."""
    site = inside(store)
    for held in read(site.store).held:
        for digest, size in load(site.store, held.snapshot).blobs.items():
            with site.store.open(digest) as file:
                assert len(file.read()) == size


# --- names ---------------------------------------------------------------------------------------------------


def test_snapshots_are_listed_oldest_first(store: Path) -> None:
    """Two bundles of one month have names of their own, and the newest is current."""
    assert _listed(store) == [(name, name == "2027-01") for name in NAMES]
    text = run("snapshots", store=store).out
    assert text.count("*") == 1
    assert "lab/here" in text


@settings(max_examples=200, deadline=None)
@given(taken=st.lists(st.sampled_from(["a", "b", *(f"a.{n}" for n in range(1, 12))]), unique=True))
def test_a_free_name_is_free_and_the_first(taken: list[str]) -> None:
    """The wish itself, or the smallest number from 2 on that nobody has."""
    given_name = free_name("a", taken)
    assert given_name not in taken
    if "a" not in taken:
        assert given_name == "a"
    else:
        number = int(given_name.partition(".")[2])
        assert all(f"a.{n}" in taken for n in range(2, number))


# --- use -----------------------------------------------------------------------------------------------------


def test_use_goes_back_and_forth(store: Path, year: Year) -> None:
    """By name, by digest, by the beginning of one; current is one that is; each change is recorded once."""
    ids = [made.packed.bundle.snapshot for made in year.bundles]
    for word, name in (
        ("2026-10", "2026-10"),
        ("2026-11.2", "2026-11.2"),
        (ids[0], "2026-10"),
        (ids[3][7:20], "2026-12"),
        (ids[4][:20], "2027-01"),
    ):
        outcome = run("use", word, "--json", store=store)
        assert (outcome.code, outcome.value["name"], outcome.value["changed"]) == (0, name, True)
        assert [n for n, current in _listed(store) if current] == [name]
        with unchanged(store):
            assert run("use", word, "--json", store=store).value["changed"] is False
            assert run("use", "current", "--json", store=store).value["name"] == name
    acts = [entry["act"] for entry in run("audit", "show", "--json", store=store).value]
    assert acts == ["receive"] * 5 + ["use"] * 5


@pytest.mark.parametrize(
    "word", ["2026-13", "", "sha256:", "zz", "abc", "sha256:" + "0" * 64, "../x", "2026-1"]
)
def test_an_unknown_snapshot_is_not_found(word: str, store: Path) -> None:
    """The error lists what there is, and nothing changes."""
    with unchanged(store):
        refused(run("use", word, store=store), NotFoundError, "2026-11.2, 2026-12", "haversack snapshots")


def test_a_snapshot_that_is_not_whole_is_not_used(store: Path, year: Year) -> None:
    """Going back to a snapshot that lost a wheel is refused: what is current serves on."""
    (beta,) = [a.digest for a in year.bundles[1].lock.artifacts if a.name == "beta"]
    (store / "blobs" / "sha256" / beta[7:]).unlink()
    with unchanged(store):
        refused(run("use", "2026-11", store=store), NotFoundError, "is not whole", beta)


def test_received_again_after_use_it_is_current_again(store: Path, year: Year) -> None:
    """The newest bundle may come twice: after a step back it is current again."""
    assert run("use", "2026-10", store=store).code == 0
    outcome = run("receive", year.bundles[-1].bundle, "--json", store=store)
    assert (outcome.code, outcome.value["changed"]) == (0, True)
    assert _listed(store)[-1] == ("2027-01", True)
    # Nothing else is given back to an older bundle by having gone back.
    assert run("use", "2026-10", store=store).code == 0
    with unchanged(store):
        assert run("receive", year.bundles[1].bundle, store=store).code == 11


# --- prune ---------------------------------------------------------------------------------------------------


def test_prune_keeps_the_newest_and_the_current_one(store: Path) -> None:
    """--keep 2 with an old snapshot current leaves three, all of them whole; the rest is gone from disk."""
    assert run("use", "2026-10", store=store).code == 0
    before = len(list((store / "blobs" / "sha256").iterdir()))
    with unchanged(store):
        planned = run("prune", "--keep", "2", "--dry-run", "--json", store=store).value
    done = run("prune", "--keep", "2", "--json", store=store).value
    assert done == planned
    assert done["snapshots"] == ["2026-11", "2026-11.2"]
    assert _listed(store) == [("2026-10", True), ("2026-12", False), ("2027-01", False)]
    assert len(list((store / "blobs" / "sha256").iterdir())) == before - done["blobs"]
    _whole(store)
    with unchanged(store):
        again = run("prune", "--keep", "2", "--json", store=store).value
    assert (again["snapshots"], again["blobs"]) == ([], 0)


@pytest.mark.parametrize("keep", range(1, 7))
@pytest.mark.parametrize("current", NAMES)
def test_prune_never_takes_what_a_kept_snapshot_needs(keep: int, current: str, store: Path) -> None:
    """Whatever is current and however many are kept, what is left is whole, and nothing else is left."""
    assert run("use", current, store=store).code == 0
    assert run("prune", "--keep", str(keep), store=store).code == 0
    left = [name for name, _ in _listed(store)]
    assert left == [name for name in NAMES if name in NAMES[-keep:] or name == current]
    _whole(store)
    site = inside(store)
    needed = {d for h in read(site.store).held for d in load(site.store, h.snapshot).blobs}
    assert {digest for digest, _ in site.store.blobs()} == needed


def test_without_keep_only_leftovers_go(store: Path) -> None:
    """A blob that no snapshot needs is dropped; all snapshots stay."""

    spare = b"left by a receive that was killed"
    digest = hashlib.sha256(spare).hexdigest()
    (store / "blobs" / "sha256" / digest).write_bytes(spare)
    done = run("prune", "--json", store=store).value
    assert (done["snapshots"], done["blobs"], done["bytes"]) == ([], 1, len(spare))
    assert len(_listed(store)) == 5
    _whole(store)


def test_prune_is_careful_with_words(store: Path) -> None:
    """Keeping none, or less than none, is a mistake on the command line."""
    for words in (["--keep", "0"], ["--keep", "-1"], ["--keep", "all"]):
        with unchanged(store):
            assert run("prune", *words, store=store).code == UsageError.exit_code


def test_an_increment_after_prune_names_what_it_misses(store: Path, year: Year, tmp_path: Path) -> None:
    """What was pruned is asked for again by name, not guessed."""
    assert run("prune", "--keep", "1", store=store).code == 0
    outside_store = tmp_path / "outside"
    shutil.copytree(year.bundles[-1].store, outside_store)

    late = tiny_bundle(
        tmp_path / "late",
        names=("alpha", "beta==1.1"),
        name="2027-02",
        base=with_fields(year.bundles[1], store=outside_store),
    )
    (beta,) = [a.digest for a in late.lock.artifacts if a.name == "beta"]
    with unchanged(store):
        outcome = run("receive", late.bundle, store=store)
    assert outcome.code == 9
    assert beta in outcome.err


# --- diff ----------------------------------------------------------------------------------------------------


def test_diff_tells_what_changed(store: Path, year: Year) -> None:
    """From one name to another, to the current one by default, and nothing from one to itself."""
    assert run("diff", "2026-10", "2026-11", store=store).out == "lab/here: beta 1.0 -> 1.1\n"
    assert run("diff", "2026-11.2", store=store).out == "lab/here: beta 1.2 -> 1.4\n"
    assert run("diff", "2026-12", "2026-12", store=store).out == "no difference\n"
    refused(run("diff", "2026-10", "never", store=store), NotFoundError, "'never'")
    site = inside(store)
    one, two = (load(site.store, made.packed.bundle.snapshot) for made in year.bundles[:2])
    forth, back = diff(one, two), diff(two, one)
    assert [(c.name, c.old, c.new) for c in forth] == [("beta", "1.0", "1.1")]
    assert [(c.name, c.old, c.new) for c in back] == [("beta", "1.1", "1.0")]
    come = diff(None, two)
    assert {(c.name, c.old, c.new) for c in come} == {("alpha", None, "1.0"), ("beta", None, "1.1")}
    assert sum(c.bytes for c in come) == sum(a.size or 0 for e in two.environments for a in e.artifacts)


# --- a store that is not as it should be -----------------------------------------------------------------------


def test_a_store_of_a_newer_layout_is_refused(store: Path) -> None:
    """Another OCI layout version, or none, is told before anything is read or written."""
    commands = (
        ["snapshots"],
        ["use", "2026-10"],
        ["prune"],
        ["receipt"],
        ["diff", "current"],
        ["audit", "verify"],
    )
    for data, error in (
        (canonical({"imageLayoutVersion": "2.0.0"}), FormatError),
        (canonical([]), FormatError),
        (b"{", StoreError),
    ):
        replace(store / "oci-layout", data)
        for words in commands:
            with unchanged(store):
                outcome = run(*words, store=store)
            assert outcome.code == error.exit_code, (words, outcome)
            assert "oci-layout" in outcome.err


INDEXES: dict[str, object] = {
    "a list": [],
    "no manifests": {"schemaVersion": 2},
    "manifests of words": {"manifests": ["x"]},
    "no annotations": {"manifests": [{"digest": "sha256:" + "0" * 64, "size": 1}]},
    "annotations of words": {"manifests": [{"annotations": "x"}]},
    "a name that is a number": {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": 1}}]},
    "no digest": {"manifests": [{"size": 1, "annotations": {"org.opencontainers.image.ref.name": "x"}}]},
    "a sequence of words": {"manifests": [], "annotations": {"io.haversack.sequence": "many"}},
    "a negative sequence": {"manifests": [], "annotations": {"io.haversack.sequence": "-3"}},
    "a sequence of 5000 digits": {"manifests": [], "annotations": {"io.haversack.sequence": "9" * 5000}},
    "a list of annotations": {"manifests": [], "annotations": ["x"]},
    "a bundle that is no digest": {"manifests": [], "annotations": {"io.haversack.bundle": "x"}},
}


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_that_was_edited_is_an_error_with_its_place(index: str, store: Path, year: Year) -> None:
    """Whoever edits index.json by hand is told where it is wrong, by every command that reads it."""
    replace(store / "index.json", canonical(INDEXES[index]))
    for words in (
        ["snapshots"],
        ["use", "2026-10"],
        ["prune"],
        ["receipt"],
        ["receive", str(year.bundles[0].bundle)],
    ):
        with unchanged(store):
            outcome = run(*words, store=store)
        assert outcome.code in {StoreError.exit_code, IntegrityError.exit_code}, (words, outcome)
        assert "index.json" in outcome.err
        assert "remedy: " in outcome.err


def test_a_snapshot_whose_metadata_was_damaged_is_named(store: Path, year: Year) -> None:
    """A bit in a snapshot's own index is found by whoever reads it, and not by those who need not."""
    bad = year.bundles[0].packed.bundle.snapshot
    path = store / "blobs" / "sha256" / bad[7:]
    replace(path, path.read_bytes()[:-1] + b"?")
    with unchanged(store):
        listed = run("snapshots", "--json", store=store).value
    assert [(s["name"], s["whole"]) for s in listed] == [(name, name != "2026-10") for name in NAMES]
    for words in (["use", "2026-10"], ["diff", "2026-10"], ["prune", "--keep", "5"]):
        with unchanged(store):
            outcome = run(*words, store=store)
        refused(outcome, IntegrityError, bad[7:], "is not what its name says")
    assert run("use", "2026-11", store=store).code == 0


def test_two_at_once_are_told_of_each_other(store: Path) -> None:
    """While one process holds the store the next one says who, and changes nothing."""
    with inside(store).store.exclusive():
        for words in (["use", "2026-10"], ["prune", "--keep", "1"]):
            refused(run(*words, store=store), StoreError, "is in use by process", "run this again")
    assert run("use", "2026-10", store=store).code == 0


def test_where_there_is_no_store_every_command_says_so(tmp_path: Path) -> None:
    """A wrong --store is an error with a remedy, and no store appears."""
    nowhere = tmp_path / "nowhere"
    commands = (
        ["snapshots"],
        ["use", "x"],
        ["prune"],
        ["receipt"],
        ["diff", "x"],
        ["audit", "show"],
        ["audit", "verify"],
    )
    for words in commands:
        refused(run(*words, store=nowhere), StoreError, "there is no store here", "HAVERSACK_STORE")
    assert not nowhere.exists()
