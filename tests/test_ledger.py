"""The ledger: every way to change it behind haversack's back is found and named; what it cannot record does not happen."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace as with_fields
from datetime import timedelta
from pathlib import Path

import pytest

from haversack.errors import ClockError, LedgerError, SpaceError
from haversack.formats import ledgerline
from haversack.formats.canonical import canonical
from haversack.model.artifact import digest_of
from haversack.model.ledger import GENESIS
from haversack.ports.ledger import FileLedger, SystemClock
from haversack.ports.media import Folders
from haversack.testing import FixedClock
from haversack.verbs.audit import attest_clock
from haversack.verbs.receive import receive
from haversack.verbs.snapshots import use
from tests.support.gate import Outcome, refused, replace, run, state, unchanged
from tests.support.tiny import Tiny, command, environ, haversack, inside, tiny_bundle

ACTS = 6


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose ledger holds six acts."""
    folder = tmp_path_factory.mktemp("kept") / "inside"
    site = inside(folder)
    for number in range(1, ACTS + 1):
        site.ledger.append("act", f"subject {number}", {"n": number})
    return folder


@pytest.fixture
def store(kept: Path, tmp_path: Path) -> Path:
    """A store of one test's own."""
    shutil.copytree(kept, tmp_path / "inside")
    return tmp_path / "inside"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle to receive."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


def _path(store: Path) -> Path:
    return store / "haversack" / "ledger.jsonl"


def _lines(store: Path) -> list[bytes]:
    return _path(store).read_bytes().splitlines(keepends=True)


def _write(store: Path, lines: list[bytes]) -> None:
    replace(_path(store), b"".join(lines))


def _head(store: Path) -> Path:
    return store / "haversack" / "ledger.jsonl.head"


def _verified(store: Path) -> Outcome:
    with unchanged(store):
        return run("audit", "verify", store=store)


# --- tampering -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(1, ACTS + 1))
def test_an_edited_line_is_named(number: int, store: Path) -> None:
    """A changed word in any line is told by that line's number."""
    lines = _lines(store)
    lines[number - 1] = lines[number - 1].replace(b'"subject ', b'"SUBJECT ')
    _write(store, lines)
    refused(_verified(store), LedgerError, f"ledger line {number}: ", "[ledger-edited]")


@pytest.mark.parametrize("number", range(1, ACTS + 1))
def test_an_edited_line_with_a_mended_digest_is_named(number: int, store: Path) -> None:
    """Whoever also mends the line's own digest breaks the chain at the next line, or the head."""
    lines = _lines(store)
    entry = ledgerline.read(lines[number - 1], number).entry
    assert entry
    lines[number - 1] = ledgerline.write(with_fields(entry, subject="something else"))
    _write(store, lines)
    where = f"ledger line {number + 1}: " if number < ACTS else f"entry {ACTS}: "
    refused(_verified(store), LedgerError, where, "[ledger-edited]")


@pytest.mark.parametrize("number", range(1, ACTS + 1))
def test_a_dropped_line_is_named(number: int, store: Path) -> None:
    """A line taken out at the front, in the middle or at the end is missed at its place."""
    lines = _lines(store)
    del lines[number - 1]
    _write(store, lines)
    outcome = _verified(store)
    refused(outcome, LedgerError, f"ledger line {number}: ", "[ledger-dropped]")
    assert f"entry {number} is missing" in outcome.err


def test_several_dropped_lines_are_told_as_a_span(store: Path) -> None:
    """Three lines gone in a row are one finding that says which."""
    lines = _lines(store)
    _write(store, [lines[0], *lines[4:]])
    outcome = _verified(store)
    refused(outcome, LedgerError, "ledger line 2: entries 2 to 4 are missing before it")
    assert outcome.err.count("[ledger-dropped]") == 1


@pytest.mark.parametrize("number", range(1, ACTS))
def test_two_exchanged_lines_are_named(number: int, store: Path) -> None:
    """Lines in another order are told as such, at the first place that is wrong."""
    lines = _lines(store)
    lines[number - 1 : number + 1] = reversed(lines[number - 1 : number + 1])
    _write(store, lines)
    refused(_verified(store), LedgerError, f"ledger line {number}: ", "[ledger-reordered]")


def test_a_doubled_line_is_named(store: Path) -> None:
    """A line that stands twice is in the wrong place once."""
    lines = _lines(store)
    _write(store, [*lines[:3], lines[2], *lines[3:]])
    refused(_verified(store), LedgerError, "ledger line 4: ", "[ledger-reordered]")


@pytest.mark.parametrize(
    "words",
    [
        b"drop me a line\n",
        b"{}\n",
        b"[]\n",
        b"\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"number":NaN}\n',
        b'{"number":7,"x":"\\ud800"}\n',
    ],
)
@pytest.mark.parametrize("place", [0, 3, ACTS])
def test_a_line_that_is_none_is_named(words: bytes, place: int, store: Path) -> None:
    """Words that are no entry are told by their line, at the front, in the middle and at the end."""
    lines = _lines(store)
    lines.insert(place, words)
    _write(store, lines)
    refused(_verified(store), LedgerError, f"ledger line {place + 1}: ", "[ledger-unreadable]")


def _forged(store: Path, count: int, **fields: object) -> None:
    """Append entries by hand that follow from each other as haversack's do."""
    lines = _lines(store)
    for _ in range(count):
        last = ledgerline.read(lines[-1], len(lines)).entry
        assert last
        entry = with_fields(last, number=last.number + 1, previous=last.digest, subject="forged")
        lines.append(ledgerline.write(with_fields(entry, **fields)))  # type: ignore[arg-type]
    _write(store, lines)


def test_lines_appended_by_hand_are_named(store: Path) -> None:
    """Two well-made lines beyond the head did not come from haversack."""
    _forged(store, 2)
    refused(_verified(store), LedgerError, f"entry {ACTS + 2}: ", "was appended without haversack")


def test_a_line_appended_with_a_wrong_chain_is_named(store: Path) -> None:
    """A line that follows from nothing is told by its number."""
    _forged(store, 1, previous=GENESIS)
    refused(_verified(store), LedgerError, f"ledger line {ACTS + 1}: ", "does not follow")


def test_a_forged_number_costs_nothing(store: Path) -> None:
    """A line that claims to be entry 10^18 is an answer at once, not a list of all that is missing."""
    _forged(store, 1, number=10**18)
    refused(_verified(store), LedgerError, f"entries {ACTS + 1} to {10**18 - 1} are missing")


@pytest.mark.parametrize(
    "time", ["yesterday", "2026-99-99T00:00:00Z", "2026-11-20T21:00:00", "", "0000-00-00"]
)
def test_a_time_that_is_none_is_named_and_stops_acts(time: str, store: Path, tiny: Tiny) -> None:
    """A moment nobody can compare with makes the line unreadable, and the next act does not guess."""
    _forged(store, 1, time=time)
    refused(_verified(store), LedgerError, f"ledger line {ACTS + 1}: 'time' is not a moment")
    with unchanged(store):
        refused(
            run("receive", tiny.bundle, store=store), LedgerError, "its last line is damaged", "audit verify"
        )


def test_one_line_said_in_other_words_is_named(store: Path) -> None:
    """White space in a line changes nothing it says, and is still not haversack's."""
    lines = _lines(store)
    lines[1] = json.dumps(json.loads(lines[1])).encode() + b"\n"
    _write(store, lines)
    refused(_verified(store), LedgerError, "ledger line 2: ", "[ledger-edited]")


def test_every_break_is_told_at_once(store: Path) -> None:
    """An edited, a dropped and an unreadable line are three findings of one run."""
    lines = _lines(store)
    lines[0] = lines[0].replace(b'"subject ', b'"SUBJECT ')
    lines[2] = b"?\n"
    del lines[4]
    _write(store, lines)
    refused(
        _verified(store),
        LedgerError,
        "ledger line 1: entry 1",
        "ledger line 3: ",
        "ledger line 5: entry 5 is missing",
    )


# --- the head ------------------------------------------------------------------------------------------------


def test_a_head_that_is_gone_is_named_and_stops_acts(store: Path, tiny: Tiny) -> None:
    """Without its head a cut-off tail could not be told: nothing is recorded over it."""
    _head(store).unlink()
    refused(_verified(store), LedgerError, "ledger head: is gone")
    with unchanged(store):
        refused(run("receive", tiny.bundle, store=store), LedgerError, "its head is gone")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"6",
        b"{}",
        b'{"number":6}',
        b'{"number":-1,"digest":"sha256:' + b"0" * 64 + b'"}',
        b"\xff",
        b'{"number":6,"digest":"x"}',
    ],
)
def test_a_head_that_is_none_is_an_error(data: bytes, store: Path, tiny: Tiny) -> None:
    """A damaged head names its file."""
    replace(_head(store), data)
    for words in (["audit", "verify"], ["receive", str(tiny.bundle)]):
        with unchanged(store):
            outcome = run(*words, store=store)
        assert outcome.code == LedgerError.exit_code
        assert "ledger.jsonl.head" in outcome.err


def test_a_head_that_is_ahead_or_of_another_ledger_is_named(store: Path, tiny: Tiny) -> None:
    """A head that names an entry the file does not have, or another one, is told, and stops acts."""
    for number, digest, words in (
        (ACTS + 3, digest_of(b"x"), f"entries {ACTS + 1} to {ACTS + 3} are missing at the end"),
        (ACTS, digest_of(b"x"), f"entry {ACTS}: is not the one that the head names"),
    ):
        replace(_head(store), canonical({"number": number, "digest": digest}))
        refused(_verified(store), LedgerError, words)
        with unchanged(store):
            outcome = run("receive", tiny.bundle, store=store)
        refused(outcome, LedgerError, "not the one that its head names", "audit verify")


def test_an_emptied_or_removed_ledger_is_named(store: Path, tiny: Tiny) -> None:
    """A file emptied or taken away is missed by its head."""
    for gone in (False, True):
        _write(store, [])
        if gone:
            _path(store).unlink()
        refused(_verified(store), LedgerError, f"entries 1 to {ACTS} are missing at the end")
        with unchanged(store):
            refused(run("receive", tiny.bundle, store=store), LedgerError, "its head names an entry")


# --- crashes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_half_written_line_heals(share: float, store: Path, tiny: Tiny) -> None:
    """What a crash wrote of an act that never happened is no break, and the next act drops it."""
    whole = _lines(store)
    _forged(store, 1)
    half = _lines(store)[-1]
    _write(store, [*whole, half[: max(1, int(len(half) * share))]])
    outcome = _verified(store)
    assert outcome.code == 0, outcome.err
    assert run("receive", tiny.bundle, store=store).code == 0
    assert len(_lines(store)) == ACTS + 1
    assert _verified(store).code == 0


def test_an_end_cut_off_by_an_editor_is_not_taken_for_a_crash(store: Path, tiny: Tiny) -> None:
    """The last recorded act without its line feed, or half of it, is not dropped: its head knows it."""
    whole = _path(store).read_bytes()
    for cut in (whole[:-1], whole[:-20]):
        replace(_path(store), cut)
        with unchanged(store):
            assert run("receive", tiny.bundle, store=store).code == LedgerError.exit_code


def test_a_kill_between_line_and_head_loses_nothing(store: Path, tiny: Tiny) -> None:
    """One line ahead of its head is an act that was recorded; the next one goes on from there."""
    head = _head(store).read_bytes()
    inside(store).ledger.append("act", "late", {})
    replace(_head(store), head)
    assert _verified(store).code == 0
    assert run("receive", tiny.bundle, store=store).code == 0
    assert [entry["number"] for entry in run("audit", "show", "--json", store=store).value] == list(
        range(1, ACTS + 3)
    )
    assert _verified(store).code == 0


# --- what cannot be recorded does not happen -------------------------------------------------------------------


def _as_folder(store: Path) -> Iterator[None]:
    ledger = _path(store)
    ledger.rename(ledger.with_name("aside"))
    ledger.mkdir()
    yield


def _lock_as_folder(store: Path) -> Iterator[None]:
    lock = _path(store).with_name("ledger.jsonl.lock")
    lock.unlink()
    lock.mkdir()
    yield


def _immutable(store: Path) -> Iterator[None]:
    done = subprocess.run(["chattr", "+i", _path(store)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"files cannot be made immutable here: {done.stderr.strip()}")
    yield
    subprocess.run(["chattr", "-i", _path(store)], check=True)


@pytest.mark.parametrize("block", [_as_folder, _lock_as_folder, _immutable])
def test_an_act_that_cannot_be_recorded_does_not_happen(
    block: Callable[[Path], Iterator[None]], store: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """With a ledger that is a folder or read-only, receive, use and prune leave the store as it is."""
    assert run("receive", tiny.bundle, store=store).code == 0
    shutil.copytree(tiny.store, tmp_path / "next" / "outside")
    later = tiny_bundle(tmp_path / "next", names=("alpha==1.1",), name="2026-12")
    assert run("receive", later.bundle, store=store).code == 0
    blocked = block(store)
    next(blocked)
    try:
        shutil.copytree(later.store, tmp_path / "last" / "outside")
        last = tiny_bundle(tmp_path / "last", names=("alpha==1.2",), name="2027-01")
        for words in (["receive", str(last.bundle)], ["use", "2026-11"], ["prune", "--keep", "1"]):
            with unchanged(store):
                outcome = run(*words, store=store)
            assert outcome.code == LedgerError.exit_code, outcome
            assert "ledger.jsonl" in outcome.err
        listed = run("snapshots", "--json", store=store).value
        assert [(s["name"], s["current"]) for s in listed] == [("2026-11", False), ("2026-12", True)]
    finally:
        next(blocked, None)


def test_an_act_on_a_full_disk_does_not_happen(tiny: Tiny, tmp_path: Path) -> None:
    """Where the file system of the ledger is full, receive says so and `current` stays what it was."""
    store = tmp_path / "inside"
    inside(store)
    before = state(store)
    script = (
        f"mount -t tmpfs -o size=64k,mode=755 tmpfs {tmp_path}/small && "
        f"mkdir {tmp_path}/small/haversack && cp -a {store}/haversack/. {tmp_path}/small/haversack && "
        f"mount --bind {tmp_path}/small/haversack {store}/haversack && "
        f"dd if=/dev/zero of={tmp_path}/small/fill bs=4k 2>/dev/null; "
        f'"$@"; code=$?; cat {store}/index.json; exit $code'
    )
    (tmp_path / "small").mkdir()
    words = ["unshare", "-m", "sh", "-c", script, "sh", *command("receive", tiny.bundle)]
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "small"]).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(words, env=environ(store), capture_output=True, text=True)
    assert done.returncode == SpaceError.exit_code, done.stderr
    assert "no room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["manifests"] == []
    assert state(store) == before


# --- the clock -----------------------------------------------------------------------------------------------


def test_a_clock_that_runs_behind_stops_acts_until_it_is_attested(tiny: Tiny, tmp_path: Path) -> None:
    """An hour back: no act, with the remedy; after `audit clock` acts go on, and the record says why."""
    clock = FixedClock()
    site = with_fields(
        inside(tmp_path / "inside"), clock=clock, ledger=FileLedger(_path(tmp_path / "inside"), clock)
    )
    receive(Folders([tiny.bundle]), site)
    shutil.copytree(tiny.store, tmp_path / "next" / "outside")
    later = tiny_bundle(tmp_path / "next", names=("alpha==1.1",), name="2026-12")
    clock.move(-3600)
    with unchanged(tmp_path / "inside"), pytest.raises(ClockError, match="last recorded act") as caught:
        receive(Folders([later.bundle]), site)
    assert (caught.value.exit_code, caught.value.remedy.count("haversack audit clock --reason")) == (17, 1)
    attest_clock("the battery of the old clock was empty", site.ledger)
    assert receive(Folders([later.bundle]), site).changed
    assert _verified(tmp_path / "inside").code == 0
    clock.move(-30)
    use("2026-11", site)
    assert _verified(tmp_path / "inside").code == 0
    times = [line.entry.time for line in site.ledger.lines() if line.entry]
    assert times[0] > times[1] <= times[2] <= times[3]


def test_a_reason_must_be_given_for_the_clock(store: Path) -> None:
    """`audit clock` without words is a mistake on the command line, and records nothing."""
    for reason in ("", "   "):
        with unchanged(store):
            assert run("audit", "clock", "--reason", reason, store=store).code == 2
    with unchanged(store):
        assert run("audit", "clock", store=store).code == 2


def test_a_machine_with_a_wrong_clock_is_told_so(tiny: Tiny, tmp_path: Path) -> None:
    """The whole program under a clock of last year: exit 17, then a reason, then the act."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    store = tmp_path / "inside"
    inside(store).ledger.append("act", "this year", {})
    before = state(store)

    def last_year(*words: str | Path) -> subprocess.CompletedProcess[str]:
        argv = ["faketime", "-f", "-365d", *command(*words)]
        return subprocess.run(argv, env=environ(store), capture_output=True, text=True)

    done = last_year("receive", tiny.bundle)
    assert done.returncode == ClockError.exit_code, done.stderr
    assert "haversack audit clock --reason TEXT" in done.stderr
    assert state(store) == before
    assert last_year("audit", "clock", "--reason", "the year was wrong before").returncode == 0
    done = last_year("receive", tiny.bundle)
    assert done.returncode == 0, done.stderr
    done = last_year("audit", "verify")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_dated_before_the_one_above_it_is_named(store: Path) -> None:
    """A well-made line with an earlier time is told, unless it attests the clock."""
    _forged(store, 1, time="2020-01-01T00:00:00Z")
    outcome = _verified(store)
    assert outcome.code == ClockError.exit_code
    assert f"ledger line {ACTS + 1}: " in outcome.err


# --- many at once --------------------------------------------------------------------------------------------


def _append(path: Path, who: int, count: int) -> None:
    ledger = FileLedger(path, SystemClock())
    for number in range(count):
        ledger.append("act", f"{who}.{number}", {})


def test_four_processes_keep_one_chain(tmp_path: Path) -> None:
    """Acts of four processes at once are all recorded, each after another."""
    path = tmp_path / "haversack" / "ledger.jsonl"
    crowd = [multiprocessing.Process(target=_append, args=(path, who, 25)) for who in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
        assert one.exitcode == 0
    store = tmp_path
    inside(store)
    assert _verified(store).code == 0
    shown = run("audit", "show", "--json", store=store).value
    assert [entry["number"] for entry in shown] == list(range(1, 101))
    for who in range(4):
        assert [e["subject"] for e in shown if e["subject"].startswith(f"{who}.")] == [
            f"{who}.{n}" for n in range(25)
        ]


def test_who_acted_where_is_recorded(tiny: Tiny, tmp_path: Path) -> None:
    """An entry names the login, the one behind sudo, the host, the bundle and what came of it."""
    done = haversack("receive", tiny.bundle, store=tmp_path / "inside", env={"SUDO_USER": "ada"})
    assert done.returncode == 0
    (entry,) = run("audit", "show", "--json", store=tmp_path / "inside").value
    assert entry["actor"].startswith("ada as ") or entry["actor"] == "ada"
    assert entry["host"] == os.uname().nodename
    assert entry["subject"] == tiny.packed.id
    assert entry["details"]["name"] == "2026-11"
    assert entry["details"]["snapshot"] == tiny.packed.bundle.snapshot


def test_tolerance_is_for_seconds_only(tmp_path: Path) -> None:
    """Network time may step a clock back by a minute, not by two; the record never runs backwards."""
    clock = FixedClock()
    ledger = FileLedger(tmp_path / "ledger.jsonl", clock)
    ledger.append("act", "x", {})
    clock.move(-59)
    entry = ledger.append("act", "y", {})
    assert entry.time == ledger.append("act", "z", {}).time
    clock.move(-timedelta(minutes=1).total_seconds())
    with pytest.raises(ClockError):
        ledger.append("act", "late", {})
