"""What :class:`haversack.ports.Store` promises."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import IntegrityError, NotFoundError, StoreError
from haversack.formats import oci
from haversack.model.artifact import Digest, digest_of
from haversack.ports import Seal, Store
from haversack.testing.contracts.refused import refused

DATA = b"what a wheel would hold " * 5000
DIGEST = digest_of(DATA)


@dataclass(frozen=True, slots=True)
class StoreBench:
    """A store under test: ``open`` gives a handle on it, each time a new one where it has more than one.

    ``damage`` flips a bit of a blob behind the store's back.
    """

    open: Callable[[], Store]
    damage: Callable[[Store, Digest], None]


class StoreContract:
    """Tests of a store; they take a fixture ``bench`` (a :class:`StoreBench`) and pytest's ``tmp_path``."""

    def test_a_blob_is_what_was_added(self, bench: StoreBench) -> None:
        """Size, file and reader of a blob tell the bytes that came in, in whatever chunks they came."""
        store = bench.open()
        chunks = [DATA[:7], b"", DATA[7:50_000], DATA[50_000:]]
        assert store.add(DIGEST, chunks) == len(DATA)
        assert store.size(DIGEST) == len(DATA)
        assert store.path(DIGEST).read_bytes() == DATA
        with store.open(DIGEST) as file:
            assert file.read() == DATA

    def test_an_empty_blob_is_a_blob(self, bench: StoreBench) -> None:
        """No bytes at all have a digest too."""
        store = bench.open()
        assert store.add(digest_of(b""), []) == 0
        assert store.size(digest_of(b"")) == 0
        with store.open(digest_of(b"")) as file:
            assert file.read() == b""

    def test_what_is_not_held_is_said_to_be_absent(self, bench: StoreBench) -> None:
        """``size`` answers ``None``, ``path`` and ``open`` raise ``NotFoundError``, ``remove`` frees nothing."""
        store = bench.open()
        assert store.size(DIGEST) is None
        refused(NotFoundError, lambda: store.path(DIGEST))
        refused(NotFoundError, lambda: store.open(DIGEST))
        assert store.remove(DIGEST) == 0

    def test_a_blob_that_is_there_is_not_read_again(self, bench: StoreBench) -> None:
        """A second ``add`` answers with the size and asks for no chunk."""
        store = bench.open()
        store.add(DIGEST, [DATA])
        assert store.add(DIGEST, _not_to_be_read()) == len(DATA)

    def test_a_blob_is_seen_in_parts_and_at_hand(self, bench: StoreBench) -> None:
        """Parts of a blob are read where they lie; what has a path is at hand, and what is not held is told."""
        store, data = bench.open(), bytes(range(256)) * 4096
        store.add(digest_of(data), [data])
        with store.peek(digest_of(data)) as file:
            assert file.seek(-3, io.SEEK_END) == len(data) - 3
            assert file.read() == data[-3:]
            assert file.seek(256) == 256
            assert file.read(2) == data[:2]
        seen: list[int] = []

        def watch(descriptor: int, hashed: int) -> None:
            assert os.pread(descriptor, len(data) + 1, 0) == data[:hashed]
            seen.append(hashed)

        place = store.path(digest_of(data), watch=watch)
        assert store.at_hand(digest_of(data)) is not None
        assert seen in ([], sorted({*seen, len(data)}))
        assert place.read_bytes() == data
        copies = store.copies()
        assert copies is None or list(copies) == [digest_of(data)]
        assert store.forget(digest_of(data)) is (copies is not None)
        assert list(store.copies() or ()) == []
        assert store.path(digest_of(data)).read_bytes() == data
        refused(NotFoundError, lambda: store.path(digest_of(b"nobody")))
        refused(NotFoundError, lambda: store.peek(digest_of(b"nobody")))

    def test_wrong_bytes_leave_nothing(self, bench: StoreBench, tmp_path: Path) -> None:
        """Other bytes than the digest names raise ``IntegrityError``; the right ones can come afterwards."""
        store = bench.open()
        wrong = tmp_path / "wrong"
        wrong.write_bytes(DATA[:-1] + b"!")
        for chunks, linkable in (([DATA, b"!"], None), ([], None), ([wrong.read_bytes()], wrong)):
            refused(IntegrityError, lambda c=chunks, p=linkable: store.add(DIGEST, c, linkable=p))  # type: ignore[misc]
            assert store.size(DIGEST) is None
            assert list(store.blobs()) == []
        assert store.add(DIGEST, [DATA]) == len(DATA)

    def test_a_source_that_fails_leaves_nothing(self, bench: StoreBench) -> None:
        """An error out of the chunks passes through, and half a blob is not kept."""
        store = bench.open()

        def failing() -> Iterator[bytes]:
            yield DATA[:100]
            raise OSError("the stick was pulled")

        refused(Exception, lambda: store.add(DIGEST, failing()))
        assert store.size(DIGEST) is None
        assert list(bench.open().blobs()) == []

    def test_nothing_is_visible_before_the_end(self, bench: StoreBench) -> None:
        """While the chunks arrive there is no blob of that name, for the writer and for others."""
        store = bench.open()
        seen: list[int | None] = []

        def watched() -> Iterator[bytes]:
            yield DATA[:100]
            seen.extend((store.size(DIGEST), bench.open().size(DIGEST)))
            yield DATA[100:]

        store.add(DIGEST, watched())
        assert seen == [None, None]

    def test_a_flipped_bit_is_found_on_the_way_out(self, bench: StoreBench) -> None:
        """The read that reaches the end of damaged bytes raises, whether all is read at once or in chunks."""
        store = bench.open()
        store.add(DIGEST, [DATA])
        store.publish(store.index())
        bench.damage(store, DIGEST)
        with store.open(DIGEST) as file:
            refused(IntegrityError, file.read)

        def in_chunks() -> None:
            with store.open(DIGEST) as file:
                while file.read(1000):
                    pass

        refused(IntegrityError, in_chunks)

    def test_a_linkable_file_is_taken_and_left_as_it_was(self, bench: StoreBench, tmp_path: Path) -> None:
        """A store may share a file's bytes, but its bytes, mode, time and name stay."""
        store = bench.open()
        for mode in (0o644, 0o444, 0o666):
            data = DATA + str(mode).encode()
            source = tmp_path / f"source-{mode:o}"
            source.write_bytes(data)
            source.chmod(mode)
            os.utime(source, ns=(10**18, 10**18))
            before = source.stat()
            assert store.add(digest_of(data), [data], linkable=source) == len(data)
            store.publish(store.index())
            after = source.stat()
            assert source.read_bytes() == data
            assert (after.st_mode, after.st_mtime_ns, after.st_ino) == (
                before.st_mode,
                before.st_mtime_ns,
                before.st_ino,
            )
            source.unlink()
            assert store.path(digest_of(data)).read_bytes() == data

    def test_a_sealed_file_is_taken(self, bench: StoreBench, tmp_path: Path) -> None:
        """A file whose bytes the caller has hashed becomes the blob, shared or not."""
        store = bench.open()
        source = tmp_path / "source"
        source.write_bytes(DATA)
        seal = Seal.of(source.lstat())
        assert store.add(DIGEST, [DATA], linkable=source, seal=seal) == len(DATA)
        store.publish(store.index())
        source.unlink()
        with store.open(DIGEST) as file:
            assert file.read() == DATA

    def test_a_broken_seal_is_not_believed(self, bench: StoreBench, tmp_path: Path) -> None:
        """A file that was written, or replaced, after it was sealed is hashed, and other bytes leave nothing."""
        store = bench.open()
        other = DATA[:-1] + b"!"
        source = tmp_path / "source"
        for replaced in (False, True):
            source.write_bytes(DATA)
            os.utime(source, ns=(10**18, 10**18))
            seal = Seal.of(source.lstat())
            if replaced:
                source.rename(tmp_path / "first")
            source.write_bytes(other)
            if replaced:
                os.utime(source, ns=(10**18, 10**18))
            refused(
                IntegrityError,
                lambda seal=seal: store.add(DIGEST, [other], linkable=source, seal=seal),  # type: ignore[misc]
            )
            assert store.size(DIGEST) is None

    def test_a_file_that_others_may_write_is_not_shared(self, bench: StoreBench, tmp_path: Path) -> None:
        """What somebody else could still alter does not alter the blob."""
        store = bench.open()
        source = tmp_path / "source"
        source.write_bytes(DATA)
        source.chmod(0o666)
        store.add(DIGEST, [DATA], linkable=source)
        store.publish(store.index())
        with source.open("r+b") as file:
            file.write(b"altered")
        with store.open(DIGEST) as blob:
            assert blob.read() == DATA

    def test_blobs_are_listed_in_order(self, bench: StoreBench) -> None:
        """Every blob and its size comes once, sorted by digest."""
        store = bench.open()
        wanted = {digest_of(bytes([n])): bytes([n]) * 1 for n in range(40)}
        for digest, data in wanted.items():
            store.add(digest, [data])
        assert list(store.blobs()) == sorted((digest, len(data)) for digest, data in wanted.items())

    def test_a_removed_blob_is_gone_and_may_come_again(self, bench: StoreBench) -> None:
        """``remove`` tells the bytes it freed, and forgets nothing else."""
        store = bench.open()
        store.add(DIGEST, [DATA])
        store.add(digest_of(b"other"), [b"other"])
        assert store.remove(DIGEST) == len(DATA)
        assert store.size(DIGEST) is None
        assert [digest for digest, _ in store.blobs()] == [digest_of(b"other")]
        assert store.add(DIGEST, [DATA]) == len(DATA)

    def test_threads_add_at_the_same_time(self, bench: StoreBench) -> None:
        """Many blobs, and one blob many times, from many threads: all are there, once."""
        store = bench.open()
        wanted = [bytes([n]) * 1000 for n in range(30)]
        problems: list[BaseException] = []

        def work() -> None:
            try:
                for data in wanted:
                    assert store.add(digest_of(data), [data]) == len(data)
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems, problems
        assert len(list(store.blobs())) == len(wanted)

    def test_free_is_a_number_of_bytes(self, bench: StoreBench) -> None:
        """A store that takes blobs says that there is room."""
        assert bench.open().free() > len(DATA)

    def test_a_new_store_has_an_empty_index(self, bench: StoreBench) -> None:
        """Before anything is published the index is OCI's empty one."""
        assert bench.open().index() == oci.empty_index()

    def test_publish_makes_index_and_blobs_visible_to_others(self, bench: StoreBench) -> None:
        """After ``publish`` another handle reads the index and every blob that was added before it."""
        store = bench.open()
        store.add(DIGEST, [DATA])
        store.publish(_index(1))
        other = bench.open()
        assert other.index() == _index(1)
        assert list(other.blobs()) == [(DIGEST, len(DATA))]

    def test_a_reader_sees_the_old_index_or_the_new(self, bench: StoreBench) -> None:
        """While the index is replaced again and again, a reader never finds a half one, or none."""
        store, other = bench.open(), bench.open()
        # Of different lengths, so that a torn read would not parse.
        known = [_index(1), _index(400)]
        store.publish(known[0])
        done = threading.Event()
        seen: list[object] = []

        def read() -> None:
            while not done.is_set():
                try:
                    seen.append(other.index())
                except BaseException as problem:
                    seen.append(problem)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(30):
            store.publish(known[number % 2])
        done.set()
        reader.join()
        assert seen
        assert all(index in known for index in seen), seen[-1]

    def test_an_index_that_cannot_be_written_leaves_the_old(self, bench: StoreBench) -> None:
        """``publish`` is all or nothing."""
        store = bench.open()
        store.publish(_index(1))
        refused(Exception, lambda: store.publish({"manifests": [], "annotations": object()}))
        assert store.index() == _index(1)
        assert bench.open().index() == _index(1)

    def test_state_is_kept_by_name(self, bench: StoreBench) -> None:
        """A small file is ``None`` until it is written, then its bytes, then what replaced them."""
        store = bench.open()
        assert store.read_state("bundles/a.json") is None
        store.write_state("bundles/a.json", b"one")
        store.write_state("facts.json", b"\x00\xff")
        store.write_state("bundles/a.json", b"two")
        assert bench.open().read_state("bundles/a.json") == b"two"
        assert store.read_state("facts.json") == b"\x00\xff"
        assert store.read_state("bundles/b.json") is None
        assert list(store.blobs()) == []

    def test_one_writer_holds_the_store(self, bench: StoreBench) -> None:
        """A second writer is refused with the first one's name, also from another thread, until it ends."""
        store = bench.open()

        def take() -> None:
            with bench.open().exclusive():
                pass

        with store.exclusive():
            problem = refused(StoreError, take)
            assert problem.message.removeprefix("is in use by ").strip()
            assert problem.remedy
        take()

    def test_a_writer_that_fails_lets_go(self, bench: StoreBench) -> None:
        """An error inside passes through, frees the store, and what was served stays."""
        store = bench.open()
        store.publish(_index(1))

        def fail() -> None:
            with store.exclusive():
                store.add(DIGEST, [DATA])
                raise LookupError

        refused(LookupError, fail)
        with bench.open().exclusive():
            assert bench.open().index() == _index(1)
        assert store.add(DIGEST, [DATA]) == len(DATA)


def _index(count: int) -> dict[str, object]:
    digest = digest_of(b"{}")
    return {**oci.empty_index(), "manifests": [oci.named(digest, 2, f"name-{n}") for n in range(count)]}


def _not_to_be_read() -> Iterator[bytes]:
    raise AssertionError("a blob that is there was read")
    yield b""
