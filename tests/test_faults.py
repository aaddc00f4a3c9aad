"""`haversack receive` as a real process that is killed, starved and lied to by its disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from haversack.errors import IntegrityError, LedgerError, SpaceError, StoreError
from haversack.model.artifact import Digest
from haversack.ports.disk import DiskStore
from haversack.ports.media import Folders
from haversack.testing import SteppingProgress
from haversack.verbs import holdings
from haversack.verbs.receive import receive
from haversack.verbs.snapshots import prune
from haversack.verbs.verify import verify
from tests.support.faults import Room, Shim, points, shim, sound, stopped, sweep
from tests.support.tiny import Tiny, command, environ, haversack, inside, outside, tiny_bundle

pytestmark = pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="needs Linux")


@dataclass(frozen=True)
class Crossing:
    """A bundle, an increment on it, and a store that has received the first."""

    full: Tiny
    more: Tiny
    store: Path
    faults: Shim

    def fresh(self, folder: Path) -> Path:
        """A copy of the store that may be written to."""
        return Path(shutil.copytree(self.store, folder / "store"))


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Crossing:
    """Made once; nobody writes to it."""
    folder = tmp_path_factory.mktemp("faults")
    full = tiny_bundle(folder / "full")
    more = tiny_bundle(folder / "more", names=("alpha==1.1", "beta"), base=full, name="2026-12")
    receive(Folders([full.bundle]), inside(folder / "store"))
    assert sound(folder / "store") == full.packed.bundle.snapshot
    return Crossing(full, more, folder / "store", shim(folder))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A mount namespace of its own."""
    made = Room(tmp_path)
    yield made
    made.close()


def finishes(bundle: Tiny, store: Path) -> None:
    """A second receive ends what the first began, and nothing of the first is left lying about."""
    receive(Folders([bundle.bundle]), inside(store))
    assert sound(store) == bundle.packed.bundle.snapshot
    leftovers = [
        path for path in store.rglob("*") if path.name.startswith(".new-") or "staging/" in str(path)
    ]
    assert leftovers == []


@pytest.mark.slow
@pytest.mark.parametrize("empty", [True, False], ids=["first", "increment"])
def test_a_receive_killed_anywhere_leaves_the_old_or_the_new(
    crossing: Crossing, tmp_path: Path, empty: bool
) -> None:
    """Killed at any call that changes the store, all that is served is sound, and a second receive finishes."""
    # Into an empty store by copying, as from a stick; an increment by linking, as on one file system.
    start, bundle = (None, crossing.full) if empty else (crossing.store, crossing.more)
    words: list[str | Path] = ["receive", bundle.bundle, *(["--copy"] if empty else [])]
    old = None if empty else crossing.full.packed.bundle.snapshot
    new = bundle.packed.bundle.snapshot
    seen: list[Digest | None] = []

    def check(name: str, path: str, store: Path, code: int) -> None:
        assert code == -signal.SIGKILL
        seen.append(sound(store))
        assert seen[-1] in {old, new}

    def finish(store: Path) -> None:
        finishes(bundle, store)

    assert sweep(crossing.faults, tmp_path, start, words, mode="k", check=check, finish=finish) > 40
    assert {old, new} == set(seen)


@pytest.mark.slow
def test_a_prune_killed_anywhere_loses_nothing_that_is_served(crossing: Crossing, tmp_path: Path) -> None:
    """Killed at any call, prune leaves every named snapshot whole; a second one leaves just what is needed."""
    start = tmp_path / "start"
    shutil.copytree(crossing.store, start)
    finishes(crossing.more, start)
    current = crossing.more.packed.bundle.snapshot

    def check(name: str, path: str, store: Path, code: int) -> None:
        assert code == -signal.SIGKILL
        assert sound(store) == current

    def finish(store: Path) -> None:
        prune(inside(store), keep=1)
        assert sound(store) == current
        needed = holdings.load(DiskStore(store), current).blobs
        assert dict(DiskStore(store).blobs()) == needed

    words = ["prune", "--keep", "1"]
    assert sweep(crossing.faults, tmp_path, start, words, mode="k", check=check, finish=finish) > 20


_PACK = """
import sys
from pathlib import Path
from tests.support.tiny import tiny_bundle
tiny_bundle(Path(sys.argv[1]), padding=100_000, volume_size=150_000)
"""


@pytest.mark.slow
def test_a_pack_killed_anywhere_hands_over_nothing_that_is_not_recorded(
    crossing: Crossing, tmp_path: Path
) -> None:
    """Killed at any call that writes the bundle, what has a volume's name is whole and is in the ledger."""
    visible = set()

    def run(at: int) -> tuple[int, Path, int]:
        folder = tmp_path / f"point-{at}"
        log = folder.with_suffix(".log")
        kill = crossing.faults.environ(folder / "bundle", at=at, log=log)
        env = {**environ(folder), "PYTHONPATH": str(Path(__file__).parent.parent), **kill}
        done = subprocess.run([sys.executable, "-c", _PACK, folder], env=env, capture_output=True, text=True)
        return done.returncode, folder, len(points(log))

    def one(at: int) -> None:
        code, folder, reached = run(at)
        assert (code, reached) == (-signal.SIGKILL, at)
        volumes = sorted(path.name for path in (folder / "bundle").glob("volume-*"))
        visible.add(len(volumes))
        acts = [line.entry.act for line in outside(folder / "outside").ledger.lines() if line.entry]
        assert acts == ["pack"] or not volumes
        if volumes:
            # Some of the volumes are told from all of them; none that is there is damaged.
            told = verify(Folders([folder / "bundle"]), None, SteppingProgress())
            wrong = {finding.code for finding in told.findings}
            assert wrong == (set() if len(volumes) == count else {"volume-missing", "path-unsafe"}), at
        shutil.rmtree(folder)

    code, folder, total = run(10**6)
    assert code == 0
    count = len(list((folder / "bundle").glob("volume-*")))
    # The renames that make volumes visible, one by one, and some of the many points before.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, [*range(1, total - count - 3, 6), *range(total - count - 3, total + 1)]))
    assert visible == set(range(count + 1))


def test_one_kill_after_the_other_breaks_no_ledger(crossing: Crossing, tmp_path: Path) -> None:
    """Acts that are cut off again and again between line and head leave a chain that holds and goes on."""
    store = crossing.fresh(tmp_path)
    kill = crossing.faults.environ(store, at=1, only="fsync", where="ledger.jsonl")
    for _ in range(3):
        done = haversack("receive", crossing.more.bundle, store=store, env=kill)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert sound(store) == crossing.full.packed.bundle.snapshot
    finishes(crossing.more, store)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "only"),
    [
        ("e", {"write", "fsync", "syncfs", "chmod", "rename", "ftruncate64"}),
        ("n", {"write", "open", "mkdir", "link"}),
    ],
    ids=["EIO", "ENOSPC"],
)
def test_a_disk_error_anywhere_is_told_and_publishes_nothing(
    crossing: Crossing, tmp_path: Path, mode: str, only: set[str]
) -> None:
    """Whatever call fails, the error has its exit code and text, and the store serves what it served."""
    old, new = crossing.full.packed.bundle.snapshot, crossing.more.packed.bundle.snapshot

    def check(name: str, path: str, store: Path, code: int) -> None:
        if name == "mkdir":
            # The folder is there already, so that nothing is lost.
            assert (code, sound(store)) == (0, new)
            return
        if mode == "n":
            assert code == SpaceError.exit_code
        elif path.startswith(f"{store}/haversack/ledger"):
            assert code == LedgerError.exit_code
        else:
            assert code in {StoreError.exit_code, LedgerError.exit_code}
        # After the last rename only its durability is in doubt: that is an error too, but the new is served.
        assert sound(store) == (new if (name, path) == ("fsync", str(store)) else old)

    def finish(store: Path) -> None:
        finishes(crossing.more, store)

    words: list[str | Path] = ["receive", crossing.more.bundle]
    reached = sweep(
        crossing.faults, tmp_path, crossing.store, words, mode=mode, check=check, finish=finish, only=only
    )
    assert reached > 20


def test_a_full_disk_is_told_and_the_receive_goes_on_later(
    crossing: Crossing, room: Room, tmp_path: Path
) -> None:
    """Without room nothing is published; with room the same command finishes."""
    big = tiny_bundle(tmp_path / "big", names=("gamma", "delta"), padding=700_000)
    disk = room.tmpfs("disk", "size=1m")
    store = disk / "store"
    done = room.run(*command("receive", big.bundle), env=environ(store))
    assert done.returncode == SpaceError.exit_code, done.stderr
    assert "no room left" in done.stderr
    assert "remedy:" in done.stderr
    assert sound(room.see(store)) is None
    room.mount("-o", "remount,size=20m", disk)
    done = room.run(*command("receive", big.bundle), env=environ(store))
    assert done.returncode == 0, done.stderr
    assert sound(room.see(store)) == big.packed.bundle.snapshot


def test_no_room_for_another_file_is_told(crossing: Crossing, room: Room) -> None:
    """A disk without inodes is full too."""
    store = room.tmpfs("disk", "nr_inodes=20") / "store"
    done = room.run(*command("receive", crossing.full.bundle), env=environ(store))
    assert done.returncode == SpaceError.exit_code, done.stderr
    assert sound(room.see(store)) is None


def test_a_read_only_store_is_told_and_still_read(crossing: Crossing, room: Room, tmp_path: Path) -> None:
    """On a read-only file system receive is refused with a remedy; what only reads works."""
    store = crossing.fresh(tmp_path)
    room.mount("--bind", "-o", "ro", store, store)
    own = {**environ(store), "XDG_STATE_HOME": str(tmp_path / "state")}
    done = room.run(*command("receive", crossing.more.bundle), env=own)
    assert done.returncode == StoreError.exit_code, done.stderr
    assert "HAVERSACK_STORE" in done.stderr
    for words in (("snapshots",), ("verify", str(crossing.more.bundle)), ("audit", "verify"), ("receipt",)):
        done = room.run(*command(*words), env=own)
        assert done.returncode == 0, (words, done.stderr)
    assert sound(store) == crossing.full.packed.bundle.snapshot


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Every file of a folder: digest, mode and time of its last change."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_read_only_medium_is_enough_and_stays_as_it_was(
    crossing: Crossing, room: Room, tmp_path: Path
) -> None:
    """A bundle on a medium that nobody can write to is verified and received."""
    bundle = tmp_path / "bundle"
    shutil.copytree(crossing.full.bundle, bundle)
    before = tree(bundle)
    room.mount("--bind", "-o", "ro", bundle, bundle)
    assert room.run("touch", bundle / "x").returncode
    for verb in ("verify", "receive"):
        done = room.run(*command(verb, bundle), env=environ(tmp_path / "store"))
        assert done.returncode == 0, done.stderr
    assert sound(tmp_path / "store") == crossing.full.packed.bundle.snapshot
    assert tree(bundle) == before


def test_a_medium_is_never_altered(crossing: Crossing, tmp_path: Path) -> None:
    """Files of a bundle that share their bytes with the store keep bytes, mode and time."""
    bundle = tmp_path / "bundle"
    shutil.copytree(crossing.full.bundle, bundle)
    before = tree(bundle)
    assert haversack("receive", bundle, store=tmp_path / "store").returncode == 0
    assert tree(bundle) == before


def test_a_store_on_another_file_system_copies(crossing: Crossing, room: Room) -> None:
    """Where no link reaches, bytes are copied, and nothing else differs."""
    store = room.tmpfs("disk", "size=20m") / "store"
    done = room.run(*command("receive", crossing.full.bundle), env=environ(store))
    assert done.returncode == 0, done.stderr
    assert sound(room.see(store)) == crossing.full.packed.bundle.snapshot
    assert {p.stat().st_nlink for p in room.see(store / "blobs" / "sha256").iterdir()} == {1}


def test_a_file_system_without_hard_links_copies(crossing: Crossing, tmp_path: Path) -> None:
    """Where the file system refuses to link, as FAT does, bytes are copied.  `--copy` copies anyway."""
    store = tmp_path / "store"
    words = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=link,linkat",
        "-e",
        "inject=link,linkat:error=EPERM",
    ]
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    done = subprocess.run(
        [*words, *command("receive", crossing.full.bundle)],
        env=environ(store),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sound(store) == crossing.full.packed.bundle.snapshot
    copied = tmp_path / "copied"
    assert haversack("receive", "--copy", crossing.full.bundle, store=copied).returncode == 0
    for place in (store, copied):
        assert {p.stat().st_nlink for p in (place / "blobs" / "sha256").iterdir()} == {1}


def test_on_one_file_system_nothing_is_stored_twice(tmp_path: Path) -> None:
    """Bundle and store together take less than a hundredth more than the bundle."""
    big = tiny_bundle(tmp_path / "big", padding=10_000_000)
    store = tmp_path / "store"
    assert haversack("receive", big.bundle, store=store).returncode == 0

    def used(*folders: Path) -> int:
        told = subprocess.run(["du", "-sc", "-B1", *folders], capture_output=True, text=True, check=True)
        return int(told.stdout.splitlines()[-1].split()[0])

    alone = used(big.bundle)
    assert alone > 20_000_000
    assert used(big.bundle, store) < alone * 1.01


def test_of_two_receives_at_once_one_is_refused(crossing: Crossing, tmp_path: Path) -> None:
    """While one receive is at work, another one and a prune are told who is; then the first finishes."""
    store = crossing.fresh(tmp_path)
    words = command("receive", crossing.more.bundle)
    halt = crossing.faults.environ(store, at=1, mode="s", only="link")
    with stopped(words, {**environ(store), **halt}) as first:
        for verb in (["receive", crossing.more.bundle], ["prune"]):
            done = haversack(*verb, store=store)
            assert done.returncode == StoreError.exit_code, done.stderr
            assert f"in use by process {first.pid}" in done.stderr
        # Whoever only reads is not kept waiting.
        assert haversack("snapshots", store=store).returncode == 0
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=30)
        assert first.returncode == 0, said
    assert sound(store) == crossing.more.packed.bundle.snapshot


def test_two_receives_racing_end_well(crossing: Crossing, tmp_path: Path) -> None:
    """Started at the same moment, over a store that is not there yet, one wins at least and none does harm."""
    for attempt in range(3):
        store = tmp_path / str(attempt)
        both = [
            subprocess.Popen(
                command("receive", crossing.full.bundle),
                env=environ(store),
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        told = [process.communicate()[1] for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes in ([0, 0], [0, StoreError.exit_code]), told
        assert sound(store) == crossing.full.packed.bundle.snapshot


def test_an_interrupted_receive_can_be_run_again(crossing: Crossing, tmp_path: Path) -> None:
    """Control-C in the middle ends with 130 and one sentence; the store serves what it served."""
    store = crossing.fresh(tmp_path)
    halt = crossing.faults.environ(store, at=1, mode="s", only="link")
    with stopped(command("receive", crossing.more.bundle), {**environ(store), **halt}) as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=30)
        assert process.returncode in {0, 130}, said
        assert "Traceback" not in said
    assert sound(store) in {crossing.full.packed.bundle.snapshot, crossing.more.packed.bundle.snapshot}
    finishes(crossing.more, store)


def test_a_flipped_bit_in_the_store_is_found(crossing: Crossing, tmp_path: Path) -> None:
    """The check of this file sees what it is for: one wrong bit under a blob's name."""
    store = crossing.fresh(tmp_path)
    blob = next((store / "blobs" / "sha256").iterdir())
    data = bytearray(blob.read_bytes())
    data[0] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    with pytest.raises((AssertionError, IntegrityError)):
        sound(store)


class Disk:
    """An ext4 image that is mounted in a room, and what is on it when the power goes."""

    def __init__(self, room: Room, folder: Path) -> None:
        self._room, self._folder = room, folder
        self._made = 0
        self.image = folder / "disk.img"
        with self.image.open("wb") as file:
            file.truncate(16 << 20)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4")
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m0", self.image], check=True)

    def mount(self, image: Path) -> Path:
        """Mount an image; the folder."""
        self._made += 1
        place = self._folder / f"mount-{self._made}"
        place.mkdir()
        self._room.mount("-o", "loop", image, place)
        return place

    def cut(self) -> Path:
        """What the image holds at this moment, mounted: whatever was not made durable is lost."""
        self._made += 1
        crashed = self._folder / f"crashed-{self._made}.img"
        subprocess.run(["cp", "--sparse=always", self.image, crashed], check=True)
        return self.mount(crashed)


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_received(crossing: Crossing, room: Room, tmp_path: Path) -> None:
    """What a finished receive reported is there after a power cut, and one in the middle leaves old or new."""
    old, new = crossing.full.packed.bundle.snapshot, crossing.more.packed.bundle.snapshot
    disk = Disk(room, tmp_path)
    store = disk.mount(disk.image) / "store"
    done = room.run(*command("receive", crossing.full.bundle), env=environ(store))
    assert done.returncode == 0, done.stderr
    assert sound(room.see(disk.cut() / "store")) == old
    served = []
    # At each of these points one process stands still while the power is cut, and is killed then.
    for at in (5, 20, 30, 40, 45, 50, 55):
        halt = crossing.faults.environ(store, at=at, mode="s")
        with stopped(room.words(command("receive", crossing.more.bundle)), {**environ(store), **halt}):
            after = room.see(disk.cut() / "store")
        served.append(sound(after))
        assert served[-1] in {old, new}
        finishes(crossing.more, after)
    assert served[0] == old
    done = room.run(*command("receive", crossing.more.bundle), env=environ(store))
    assert done.returncode == 0, done.stderr
    assert sound(room.see(disk.cut() / "store")) == new
