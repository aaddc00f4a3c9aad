"""Collect: every file once, what arrived is kept, and what must not travel does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.errors import FetchError, IntegrityError
from haversack.formats import lockfile
from haversack.model.finding import Finding
from haversack.verbs import collect
from tests.support import tiny
from tests.support.site import WINDOWS, Lab
from tests.support.wheels import make_wheel


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A site whose index has what its tests put there."""
    with Lab(tmp_path / "lab") as made:
        yield made


def many(lab: Lab, count: int, size: int = 20_000) -> list[Path]:
    """Packages ``p0`` … of some size that does not compress, declared and locked."""
    wheels = [
        make_wheel(
            lab.wheels, f"p{n}", "1.0", extra_files={f"p{n}/noise.bin": random.Random(n).randbytes(size)}
        )
        for n in range(count)
    ]
    lab.declare(*(f"p{n}" for n in range(count)))
    lab.lock()
    lab.index.requests.clear()
    return wheels


def collected(lab: Lab) -> list[Finding]:
    """Collect in this process; what was wrong."""
    site = lab.site()
    out = lab.outside(site)
    lock, _ = lockfile.read((lab.root / lockfile.FILENAME).read_bytes(), "lock")
    try:
        with out.store.exclusive():
            collect.collect(lock, lab.root, collect.plan(lock, out), out)
    except (FetchError, IntegrityError) as problem:
        return list(problem.findings)
    return []


def fetched(lab: Lab) -> list[str]:
    """The files that were asked for so far, as often as they were."""
    return sorted(request.path.rpartition("/")[2] for request in lab.index.asked("/files/"))


def pack_process(lab: Lab, *words: str) -> subprocess.Popen[str]:
    """A pack in a process of its own, to be killed."""
    argv = tiny.command("pack", "-o", str(lab.folder / "out"), "--no-rehearse", *words)
    return subprocess.Popen(
        argv, cwd=lab.root, env=lab.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_everything_is_fetched_once(lab: Lab) -> None:
    """One request a file on the first run, and none on the second."""
    wheels = many(lab, 5)
    assert collected(lab) == []
    files = fetched(lab)
    assert len(files) == len(set(files))
    assert set(files) >= {wheel.name for wheel in wheels}
    lab.index.requests.clear()
    assert collected(lab) == []
    assert lab.index.requests == []


def test_files_that_two_targets_share_are_fetched_once(lab: Lab) -> None:
    """A file of several environments and targets crosses the wire once."""
    make_wheel(lab.wheels, "demo", "1.0")
    lab.declare(
        "demo",
        targets=("here", WINDOWS),
        more='[env.other]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["here"]',
    )
    lab.lock()
    lab.index.requests.clear()
    assert collected(lab) == []
    assert fetched(lab).count("demo-1.0-py3-none-any.whl") == 1


def test_what_arrived_is_kept_when_another_file_fails(lab: Lab) -> None:
    """One missing file fails the run, names it, and the next run asks for that file alone."""
    wheels = many(lab, 5)
    fault = lab.index.fault("/files/p3", method="GET", status=404)
    (finding,) = collected(lab)
    assert finding.code == "fetch-failed"
    assert finding.subject == wheels[3].name
    assert fault.hits >= 1
    lab.index.heal()
    lab.index.requests.clear()
    assert collected(lab) == []
    assert fetched(lab) == [wheels[3].name]


def test_all_failures_are_told_at_once(lab: Lab) -> None:
    """Every file that fails is named in one go, the worst class first."""
    many(lab, 6)
    lab.index.fault("/files/p1", status=404)
    lab.index.fault("/files/p2", flip_at=500)
    lab.index.fault("/files/p4", status=410)
    findings = collected(lab)
    assert [(f.code, f.subject[:2]) for f in findings] == [
        ("blob-damaged", "p2"),
        ("fetch-failed", "p1"),
        ("fetch-failed", "p4"),
    ]


def test_a_killed_run_goes_on_where_it_was(lab: Lab) -> None:
    """After a kill -9, whole files are not asked for again and a half one only for its rest."""
    wheels = many(lab, 4, 60_000)
    lab.index.fault("/files/p3", method="GET", stall_at=50_000, times=1)
    process = pack_process(lab)
    rest = {wheel.name for wheel in wheels[:3]}
    partial = lab.store / "haversack" / "cache" / "partial"
    due = time.monotonic() + 30
    while not (
        rest <= set(fetched(lab))
        and any(file.stat().st_size >= 50_000 for file in halves(partial, wheels[3]))
    ):
        assert time.monotonic() < due
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (lab.folder / "out").exists() or not list((lab.folder / "out").glob("volume-*"))
    lab.index.requests.clear()
    done = pack_process(lab)
    assert done.wait(60) == 0, done.communicate()
    done.communicate()
    assert [(request.path.rpartition("/")[2], request.range) for request in lab.index.asked("/files/")] == [
        (wheels[3].name, "bytes=50000-")
    ]
    assert list(partial.iterdir()) == []


def halves(partial: Path, wheel: Path) -> list[Path]:
    """What has arrived of a wheel."""
    name = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return [file for file in (partial.iterdir() if partial.is_dir() else ()) if file.name == name]


def test_an_interrupted_run_says_how_to_go_on(lab: Lab) -> None:
    """Ctrl-C while collecting ends with a word on going on, no traceback, and no bundle."""
    many(lab, 2, 60_000)
    lab.index.fault("/files/p1", method="GET", delay=0.2)  # at that pace it takes twelve seconds
    process = pack_process(lab)
    due = time.monotonic() + 30
    while not lab.index.asked("/files/p1"):
        assert time.monotonic() < due
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=8)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not list((lab.folder / "out").glob("volume-*"))


@pytest.mark.parametrize(
    ("fault", "code", "word"),
    [
        ({"flip_at": 700}, "blob-damaged", "digest"),
        ({"status": 404}, "fetch-failed", "404"),
        ({"truncate_at": 100, "no_range": True}, "fetch-failed", "broke off"),
        ({"hang_up": True}, "fetch-failed", "broke off"),
    ],
)
def test_a_host_that_misbehaves_is_told_in_words(
    lab: Lab, fault: dict[str, int], code: str, word: str
) -> None:
    """A file that is changed, gone or cut short is named, with what its host did."""
    (wheel,) = many(lab, 1)
    lab.index.fault("/files/p0", method="GET", **fault)
    (finding,) = collected(lab)
    assert (finding.code, finding.subject) == (code, wheel.name)
    assert word in finding.message


@pytest.mark.parametrize(("fault", "code"), [({"flip_at": 700}, 7), ({"status": 404}, 6)])
def test_a_host_that_misbehaves_makes_no_bundle(lab: Lab, fault: dict[str, int], code: int) -> None:
    """Where one file is not what it should be, or is gone, pack ends with 7 or 6 and writes nothing."""
    many(lab, 1)
    lab.index.fault("/files/p0", method="GET", **fault)
    lab.told("pack", "-o", lab.folder / "out", code=code)
    assert list((lab.folder / "out").rglob("*")) == []


def test_an_index_that_lied_about_a_digest(lab: Lab) -> None:
    """Where the index told another digest than the file has, the file never gets into the store."""
    wheel = make_wheel(lab.wheels, "demo", "1.0")
    lab.index.lie_about.add(wheel.name)
    lab.declare("demo")
    lab.lock()
    told = lab.told("pack", "-o", lab.folder / "out", code=7)
    assert [(f["code"], f["subject"]) for f in told["findings"]] == [("blob-damaged", wheel.name)]
    blobs = lab.store / "blobs" / "sha256"
    assert all(file.read_bytes() != wheel.read_bytes() for file in blobs.iterdir())


def test_a_local_wheel_that_changed_since(lab: Lab) -> None:
    """A wheel beside the declaration that is another one now, or gone, is refused."""
    path = make_wheel(lab.root / "local", "mine", "1.0")
    lab.declare("./local/mine-1.0-py3-none-any.whl")
    lab.lock()
    make_wheel(lab.root / "local", "mine", "1.0", modules={"mine.py": "changed = True\n"})
    assert [finding.code for finding in collected(lab)] == ["blob-damaged"]
    path.unlink()
    assert [finding.code for finding in collected(lab)] == ["fetch-failed"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"corrupt_record": "hash"}, "wheel-record"),
        ({"corrupt_record": "missing"}, "wheel-record"),
        ({"corrupt_record": "extra"}, "wheel-record"),
        ({"corrupt_record": "absent"}, "wheel-invalid"),
        ({"extra_files": {"../outside.py": b"x = 1\n"}}, "path-unsafe"),
        ({"extra_files": {"/etc/outside.py": b"x = 1\n"}}, "path-unsafe"),
    ],
    ids=["hash", "missing", "extra", "absent", "traversal", "absolute"],
)
def test_a_bad_wheel_does_not_travel(lab: Lab, bad: dict[str, object], code: str) -> None:
    """A wheel that contradicts itself, or leaves its folder ends with 7 before anything is written."""
    wheel = make_wheel(lab.wheels, "demo", "1.0", **bad)  # type: ignore[arg-type]
    lab.declare("demo")
    lab.lock()
    for _ in range(2):
        told = lab.told("pack", "-o", lab.folder / "out", code=7)
        assert code in {finding["code"] for finding in told["findings"]}
        assert any(wheel.name in finding["subject"] for finding in told["findings"])
        assert list((lab.folder / "out").rglob("*")) == []
    assert [entry["act"] for entry in lab.told("audit", "show")] == []


def test_a_bomb_does_not_travel(lab: Lab) -> None:
    """A wheel with a member that unpacks to far more than it declares ends with 7."""
    wheel = make_wheel(lab.wheels, "demo", "1.0", extra_files={"demo/zeros.bin": bytes(5_000_000)})
    data = wheel.read_bytes()
    declared = struct.pack("<I", 5_000_000)
    assert data.count(declared) == 2  # before the member and in the directory
    wheel.write_bytes(data.replace(declared, struct.pack("<I", 5_000)))
    lab.declare("demo")
    lab.lock()
    told = lab.told("pack", "-o", lab.folder / "out", code=7)
    assert "wheel-bomb" in {finding["code"] for finding in told["findings"]}


def small_disk(lab: Lab, place: Path, size: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run haversack where ``place`` is a file system of that size, in a mount namespace of its own."""
    place.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", script, "sh", size, str(place), *words]
    return subprocess.run(argv, cwd=lab.root, env=lab.environ, capture_output=True, text=True, check=False)


def can_mount(tmp_path: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    argv = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_a_store_that_is_too_small(lab: Lab, tmp_path: Path) -> None:
    """Where the files will not fit, pack ends with 14 before it fetches one, with both numbers."""
    if not can_mount(tmp_path):
        pytest.skip("cannot mount a tmpfs here")
    many(lab, 2, 4_000_000)
    words = tiny.command(
        "pack", "--json", "--store", str(lab.folder / "small"), "-o", str(lab.folder / "out")
    )
    done = small_disk(lab, lab.folder / "small", "6m", words)
    assert done.returncode == 14, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["error"] == "space"
    assert "free" in told["message"]
    assert lab.index.asked("/files/") == []


def test_a_new_file_without_an_end_leaves_room(lab: Lab, tmp_path: Path) -> None:
    """A first lock takes what nobody knows the size of, and stops while a tenth of the room is left."""
    if not can_mount(tmp_path):
        pytest.skip("cannot mount a tmpfs here")
    (lab.wheels / "model.bin").write_bytes(b"one")
    lab.index.fault("model.bin", endless=True)
    url = lab.index.file_url("model.bin")
    lab.write("haversack.toml", f'[site]\nname = "lab"\n[[file]]\nurl = "{url}"\n')
    store = lab.folder / "small"
    words = ["sh", "-c", '"$@"; code=$?; du -sk "$0" >&2; exit $code', str(store)]
    words += tiny.command("lock", "--json", "--store", str(store))
    done = small_disk(lab, store, "20m", words)
    assert done.returncode == 14, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert "came and no end of them, with a tenth of the room" in told["message"]
    assert told["where"] == url
    assert int(done.stderr.split()[0]) < 2000


def test_a_medium_that_is_too_small(lab: Lab, tmp_path: Path) -> None:
    """Where the bundle does not fit on its medium, pack ends with 14 and leaves no volume there."""
    if not can_mount(tmp_path):
        pytest.skip("cannot mount a tmpfs here")
    many(lab, 2, 4_000_000)
    medium = lab.folder / "medium"
    pack = tiny.command("pack", "--json", "--no-rehearse", "-o", str(medium / "out"))
    words = ["sh", "-c", '"$@"; code=$?; find "$0" -type f >&2; exit $code', str(medium), *pack]
    done = small_disk(lab, medium, "6m", words)
    assert done.returncode == 14, done.stdout + done.stderr
    assert str(medium) not in done.stderr
    assert json.loads(done.stdout)["error"] == "space"


def test_a_dry_run_writes_nothing_and_fetches_nothing(lab: Lab) -> None:
    """pack --dry-run says what it would cost and leaves the wire and the disk alone."""
    wheels = many(lab, 2)
    told = lab.told("pack", "--dry-run", "-o", lab.folder / "out")
    assert told
    assert lab.index.asked("/files/") == []
    assert not (lab.folder / "out").exists()
    assert [entry["act"] for entry in lab.told("audit", "show")] == []
    assert wheels


def test_progress_never_ends_beyond_the_whole(lab: Lab) -> None:
    """What the progress of collecting adds up to is what was planned, over a line that breaks, too."""
    many(lab, 3, 60_000)
    lab.index.fault("/files/p1", method="GET", truncate_at=30_000, times=1)
    site = lab.site()
    out = lab.outside(site)
    lock, _ = lockfile.read((lab.root / lockfile.FILENAME).read_bytes(), "lock")
    counts: dict[str, list[int]] = {}

    class Counting:
        def __init__(self, label: str, total: int, unit: str = "B") -> None:
            self.told = counts.setdefault(label, [total])

        def __enter__(self) -> Counting:
            return self

        def __call__(self, count: int) -> None:
            self.told.append(count)

        def __exit__(self, *_: object) -> None:
            return None

    out = dataclasses.replace(out, progress=Counting)
    with out.store.exclusive():
        planned = collect.plan(lock, out)
        collect.collect(lock, lab.root, planned, out)
    total, *steps = counts["collecting"]
    assert total == planned.bytes
    assert sum(steps) == total


def test_the_index_is_asked_for_sizes_it_did_not_tell(lab: Lab) -> None:
    """With an index of HTML alone the plan still knows its bytes, by asking the host of each file."""
    wheels = many(lab, 3)
    site = lab.site()
    out = lab.outside(site)
    lock, _ = lockfile.read((lab.root / lockfile.FILENAME).read_bytes(), "lock")
    planned = collect.plan(lock, out)
    assert planned.unknown == 0
    assert planned.bytes >= sum(wheel.stat().st_size for wheel in wheels)
    assert len(lab.index.asked("/files/p0", method="HEAD")) == 1
