"""Stores, held to what `haversack.ports.Store` promises; and what only a store on disk can do."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import FormatError, IntegrityError, NotFoundError, StoreError
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.ports import Seal, Store
from haversack.ports.disk import DiskStore
from haversack.testing import MemoryStore
from haversack.testing.contracts import StoreBench, StoreContract


def flip(store: Store, digest: Digest) -> None:
    """Flip a bit of a blob's file."""
    place = store.path(digest)
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.chmod(0o644)
    place.write_bytes(data)


class TestDiskStore(StoreContract):
    """The store on disk."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> StoreBench:
        """Each handle opens the folder anew, as each process does."""
        return StoreBench(lambda: DiskStore(tmp_path / "store", create=True), flip)


class TestMemoryStore(StoreContract):
    """The twin in memory."""

    @pytest.fixture
    def bench(self) -> StoreBench:
        """There is one handle only."""
        store = MemoryStore()

        def damage(_: Store, digest: Digest) -> None:
            store.damage(digest)

        return StoreBench(lambda: store, damage)


_HOLD = """
import sys
from pathlib import Path
from haversack.ports.disk import DiskStore
with DiskStore(Path(sys.argv[1])).exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_told_the_first(tmp_path: Path) -> None:
    """While another process holds the store, the error names that process; afterwards the store is free."""
    store = DiskStore(tmp_path, create=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"in use by process {holder.pid}\b"), store.exclusive():
            pass
        assert holder.stdin is not None
        holder.stdin.close()
    with store.exclusive():
        pass


def test_a_killed_holder_lets_go_and_its_leftovers_go(tmp_path: Path) -> None:
    """A process that was killed holds nothing; what it left half done is gone with the next writer."""
    store = DiskStore(tmp_path, create=True)
    staging = tmp_path / "haversack" / "staging"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (staging / "0123456789abcdef-half").write_bytes(b"half a blob")
        holder.kill()
    with store.exclusive():
        assert list(staging.iterdir()) == []


def test_the_layout_is_that_of_an_oci_image(tmp_path: Path) -> None:
    """Whoever knows the OCI image layout finds the blobs: `oci-layout`, `index.json`, `blobs/sha256`."""
    store = DiskStore(tmp_path, create=True)
    data = b"a blob"
    store.add(digest_of(data), [data])
    store.publish(store.index())
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((tmp_path / "index.json").read_bytes())["schemaVersion"] == 2
    blob = tmp_path / "blobs" / "sha256" / hashlib.sha256(data).hexdigest()
    assert blob.read_bytes() == data
    assert blob.stat().st_mode & 0o777 == 0o444


def test_a_file_of_one_owner_is_shared_on_disk(tmp_path: Path) -> None:
    """On one file system a linkable file and its blob take the space of one."""
    data = b"a wheel" * 100_000
    source = tmp_path / "source.whl"
    source.write_bytes(data)
    store = DiskStore(tmp_path / "store", create=True)
    before = os.statvfs(tmp_path).f_bfree
    store.add(digest_of(data), [data], linkable=source)
    store.publish(store.index())
    blob = store.path(digest_of(data))
    shared = blob.stat().st_ino == source.stat().st_ino
    assert shared or before - os.statvfs(tmp_path).f_bfree < len(data) // 512 // 2


def test_a_blob_that_shares_blocks_is_everybodys_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel clones blocks (XFS, Btrfs), which is played here, a server with a user of its own reads the blob."""

    def cloned(to: int, request: int, source: int) -> int:
        assert request == 0x40049409
        return os.pwrite(to, os.pread(source, 1 << 20, 0), 0) * 0

    monkeypatch.setattr(fcntl, "ioctl", cloned)
    data = b"a wheel" * 100
    source = tmp_path / "source.whl"
    source.write_bytes(data)
    store = DiskStore(tmp_path / "store", create=True)
    store.add(digest_of(data), [data], linkable=source)
    store.publish(store.index())
    blob = store.path(digest_of(data))
    assert blob.stat().st_ino != source.stat().st_ino
    assert blob.stat().st_mode & 0o777 == 0o444


def test_a_sealed_file_is_not_hashed_again(tmp_path: Path) -> None:
    """A store that shares a file takes its seal's word; who sealed other bytes is found out when they are read."""
    source = tmp_path / "source.whl"
    source.write_bytes(b"other")
    store = DiskStore(tmp_path / "store", create=True)
    digest = digest_of(b"a wheel")
    assert store.add(digest, [], linkable=source, seal=Seal.of(source.lstat())) == len(b"other")
    with store.open(digest) as file, pytest.raises(IntegrityError):
        file.read()


def test_a_sealed_file_that_cannot_be_linked_is_hashed(tmp_path: Path) -> None:
    """What is copied is hashed on its way, whatever its seal says."""
    real = tmp_path / "real.whl"
    real.write_bytes(b"other")
    link = tmp_path / "link.whl"
    link.symlink_to(real)
    store = DiskStore(tmp_path / "store", create=True)
    with pytest.raises(IntegrityError):
        store.add(digest_of(b"a wheel"), [b"other"], linkable=link, seal=Seal.of(link.lstat()))


def test_a_linkable_file_that_cannot_be_linked_is_copied(tmp_path: Path) -> None:
    """A symbolic link, or a file that others may write, gives a blob of its own."""
    data = b"a wheel" * 100
    real = tmp_path / "real.whl"
    real.write_bytes(data)
    link = tmp_path / "link.whl"
    link.symlink_to(real)
    store = DiskStore(tmp_path / "store", create=True)
    store.add(digest_of(data), [data], linkable=link)
    store.publish(store.index())
    blob = store.path(digest_of(data))
    assert not blob.is_symlink()
    assert blob.stat().st_ino != real.stat().st_ino


def test_what_failed_to_arrive_takes_no_room(tmp_path: Path) -> None:
    """Wrong bytes, linked or copied, leave no file behind, not even in the staging folder."""
    store = DiskStore(tmp_path / "store", create=True)
    before = sorted(tmp_path.rglob("*"))
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"other")
    for linkable in (None, wrong):
        with pytest.raises(IntegrityError):
            store.add(digest_of(b"one"), [b"other"], linkable=linkable)
    wrong.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """No store, and a store of another layout, are told apart and never made into one unasked."""
    with pytest.raises(StoreError, match="no store here"):
        DiskStore(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    DiskStore(tmp_path / "other", create=True)
    (tmp_path / "other" / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(FormatError, match=r"1\.0\.0"):
        DiskStore(tmp_path / "other")


def test_an_index_that_is_none_is_named(tmp_path: Path) -> None:
    """A damaged `index.json` is an error that names the file, not an empty store."""
    store = DiskStore(tmp_path, create=True)
    for wrong in ('{"manifests":', "[]", '{"schemaVersion":2}'):
        (tmp_path / "index.json").write_text(wrong)
        with pytest.raises(StoreError, match=r"index\.json"):
            store.index()


def test_what_lies_among_the_blobs_without_being_one_is_not_served(tmp_path: Path) -> None:
    """A folder or a link under a blob's name is not taken for the blob."""
    store = DiskStore(tmp_path, create=True)
    digest = digest_of(b"one")
    place = tmp_path / "blobs" / "sha256" / hex_of(digest)
    place.symlink_to("/etc/hostname")
    assert store.size(digest) is None
    with pytest.raises(NotFoundError):
        store.path(digest)
