"""Blobs of the store as they leave it: no byte of one is trusted before the whole was hashed.

A blob is hashed the first time it is served, again when its file is no longer the one that was hashed
(inode, size, times), and again after a day.  A client need not wait for that: bytes that were hashed leave
while the rest is still read, but the last ones stay here until the digest fits.

A blob that lies elsewhere (in a bucket) is hashed as it arrives, once for all who wait for it, and what has
arrived leaves in the same way.  It arrives to its end even if nobody waits any more; those whose turn has not
come are forgotten with the last who waits for them.  A copy that is found wrong is brought anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from haversack.errors import HaversackError, IntegrityError, StoreError
from haversack.model.artifact import Digest, hex_of
from haversack.ports import Store

HELD_BACK = 64 << 10
"""The bytes at the end that are given away last: without them no client takes the file for whole."""
TRUSTED = 24 * 3600.0
"""Seconds after which a blob is hashed again."""
_CHUNK = 1 << 20
_STRIDE = 8
"""Chunks after which waiting clients are told how far the reading is."""
_OPENING, _HASHING = 8, 2
_WAYS = 32
"""Blobs that are brought here at once."""
_AGAIN = 60.0
"""Seconds after which a blob that was a wrong one is looked for again where it lies."""
Stamp: TypeAlias = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Proof:
    """What is known of one file: how many bytes were hashed, and once all were, whether they fit."""

    stamp: Stamp
    size: int
    hashed: int = 0
    right: bool | None = None
    at: float = 0.0
    problem: HaversackError | None = None
    gone: bool = False
    """The file was a local copy that was wrong, and is gone: the blob may be brought anew."""
    """Why not all of it could be read, which says nothing of the bytes."""
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def further(self) -> None:
        """Wait until more is known."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future

    def tell(self, hashed: int, right: bool | None) -> None:
        """Say how far the reading is, in the thread of the event loop."""
        self.hashed, self.right = hashed, right
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


@dataclass(slots=True)
class Arrival:
    """A blob that is being brought here: what is known of it, and its file once something is in it."""

    proof: Proof
    file: BinaryIO | None = None
    clients: int = 0
    """Those who wait for the first of its bytes."""


class Blobs:
    """The blobs of a store, opened and hashed in threads of their own.

    ``on_damage`` is called once for each file that is found not to be what its name says.
    """

    def __init__(self, store: Store, on_damage: Callable[[Digest], None]) -> None:
        self._store = store
        self._on_damage = on_damage
        self._proofs: dict[Digest, Proof] = {}
        self._arrivals: dict[Digest, Arrival] = {}
        # Of the arrivals those whose turn has not come, in the order in which they were asked for.
        self._pending: dict[Digest, Arrival] = {}
        self._ended = False
        self.opening = ThreadPoolExecutor(_OPENING, "open")
        self._hashing = ThreadPoolExecutor(_HASHING, "hash")

    def open(self, digest: Digest) -> tuple[BinaryIO, Stamp, int] | None:
        """The file of a blob, what tells it from another, and its size, if it is here; for a thread.

        Raises ``NotFoundError`` or ``StoreError``.
        """
        path = self._store.at_hand(digest)
        if path is None:
            return None
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            # A copy that made room for another one at this moment.
            return None
        status = os.fstat(file.fileno())
        return file, _stamp(status), status.st_size

    def proof(self, digest: Digest, file: BinaryIO, stamp: Stamp, size: int) -> Proof:
        """What is known of an open file, which may be nothing yet: then it is being read from now on."""
        proof = self._proofs.get(digest)
        if proof is not None and proof.stamp == stamp:
            expired = proof.right is True and time.monotonic() - proof.at > TRUSTED
            if not expired:
                return proof
        proof = Proof(stamp, size)
        # There may be no descriptor to be had: then nobody may wait for what nobody finds out.
        descriptor = os.dup(file.fileno())
        self._hashing.submit(self._prove, digest, descriptor, proof, asyncio.get_running_loop())
        self._proofs[digest] = proof
        return proof

    async def doubt(self, digest: Digest) -> None:
        """Look whether a blob of which something wrong was read is damaged, and raise ``IntegrityError`` if it is.

        It is hashed anew, unless that was done within the last minute.
        """
        proof = self._proofs.get(digest)
        if proof is not None and proof.right and time.monotonic() - proof.at > _AGAIN:
            del self._proofs[digest]
        (await self.passage(digest, 0, None, whole=True)).close()

    def _prove(self, digest: Digest, descriptor: int, proof: Proof, loop: asyncio.AbstractEventLoop) -> None:
        """Hash a file, in a thread, and let those who wait know how far it is."""
        told, right = 0, False
        with open(descriptor, "rb", buffering=0) as file:
            hashing = hashlib.sha256()
            buffer = memoryview(bytearray(min(_CHUNK, proof.size + 1)))
            try:
                while not self._ended and (count := os.preadv(file.fileno(), [buffer], told)):
                    hashing.update(buffer[:count])
                    told += count
                    if told % (_STRIDE * _CHUNK) < _CHUNK:
                        _tell(loop, proof, told, None)
                right = told == proof.size and hashing.hexdigest() == hex_of(digest)
            except OSError:
                # A disk that cannot read a blob back has lost it.
                right = False
        if self._ended:
            return
        proof.at = time.monotonic()
        if not right and self._store.forget(digest):
            # It was a copy, and says nothing of the blob.
            proof.problem = StoreError("a copy was damaged and is brought anew; ask again", where=digest)
            proof.gone = True
            _tell(loop, proof, told, None)
            return
        _tell(loop, proof, told, right)
        if not right:
            self._on_damage(digest)

    async def passage(self, digest: Digest, start: int, stop: int | None, *, whole: bool) -> FilePassage:
        """Some bytes of a blob, to the end without ``stop``; the first of them may leave.

        With ``whole`` all of the blob is hashed before.  Raises ``IntegrityError`` for damaged blobs, and what
        :meth:`open` raises.
        """
        file, proof = await self._opened(digest)
        try:
            return await self._passage(digest, file, proof, start, stop, whole=whole)
        except StoreError:
            if not proof.gone:
                raise
        # Nothing has left yet.
        file, proof = await self._opened(digest)
        return await self._passage(digest, file, proof, start, stop, whole=whole)

    async def _passage(
        self, digest: Digest, file: BinaryIO, proof: Proof, start: int, stop: int | None, *, whole: bool
    ) -> FilePassage:
        try:
            passage = FilePassage(self, digest, file, proof, start, proof.size if stop is None else stop)
            while whole and proof.right is None and proof.problem is None:
                await proof.further()
            # Where nothing may leave at all, the answer can still be an error.
            await passage.released(start)
        except BaseException:
            file.close()
            raise
        return passage

    async def _opened(self, digest: Digest) -> tuple[BinaryIO, Proof]:
        """The file of a blob, with at least the first of its bytes, and what is known of it."""
        loop = asyncio.get_running_loop()
        while True:
            held = await loop.run_in_executor(self.opening, self.open, digest)
            if held is not None:
                try:
                    return held[0], self.proof(digest, *held)
                except BaseException:
                    held[0].close()
                    raise
            arrival = self._arrivals.get(digest) or self._brought(digest)
            proof = arrival.proof
            arrival.clients += 1
            try:
                while arrival.file is None and proof.right is None and proof.problem is None:
                    await proof.further()
            finally:
                arrival.clients -= 1
                if not arrival.clients and self._pending.get(digest) is arrival:
                    del self._pending[digest], self._arrivals[digest]
            if proof.problem is not None:
                raise proof.problem
            if proof.right is False:
                raise _damaged(digest)
            if arrival.file is not None:
                return os.fdopen(os.dup(arrival.file.fileno()), "rb", buffering=0), proof
            # It was here whole before anybody looked: now it is opened by its name.

    def _brought(self, digest: Digest) -> Arrival:
        """Begin to bring a blob here, unless it was a wrong one a moment ago."""
        known = self._proofs.get(digest)
        if known is not None and known.right is False and time.monotonic() - known.at < _AGAIN:
            return Arrival(known)
        arrival = self._arrivals[digest] = self._pending[digest] = Arrival(Proof((0, 0, 0, 0, 0), 0))
        self._begin()
        return arrival

    def _begin(self) -> None:
        """Bring what waits, as far as there are ways: a thread for each."""
        loop = asyncio.get_running_loop()
        while self._pending and len(self._arrivals) - len(self._pending) < _WAYS:
            digest = next(iter(self._pending))
            arrival = self._pending.pop(digest)
            # The end of the process waits for no server that says nothing.
            thread = threading.Thread(
                target=self._bring, args=(digest, arrival, loop), name="bring", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as problem:
                arrival.proof.problem = StoreError(f"a blob cannot be brought here: {problem}")
                loop.call_soon(self._arrived, digest, arrival, None)

    def _bring(self, digest: Digest, arrival: Arrival, loop: asyncio.AbstractEventLoop) -> None:
        """Bring a blob here, in a thread, and let those who wait know how far it is."""
        proof = arrival.proof
        right: bool | None = None

        def watch(descriptor: int, hashed: int) -> None:
            if self._ended:
                raise StoreError("the server ends")
            if arrival.file is None:
                arrival.file = os.fdopen(os.dup(descriptor), "rb", buffering=0)
            _tell(loop, proof, hashed, None)

        try:
            proof.size = self._store.size(digest) or 0
            path = self._store.path(digest, watch=watch)
            # Its name may be another's already, or nobody's.
            proof.stamp = _stamp(os.fstat(arrival.file.fileno()) if arrival.file else path.stat())
            right = True
        except IntegrityError:
            right = False
            self._on_damage(digest)
        except HaversackError as problem:
            proof.problem = problem
        except OSError as problem:
            proof.problem = StoreError(f"a copy of a blob cannot be kept: {problem.strerror}")
        except Exception as problem:
            # Whatever it is, those who wait must hear of it.
            proof.problem = StoreError(f"a blob cannot be brought here: {type(problem).__name__}")
        proof.at = time.monotonic()
        if not self._ended:
            loop.call_soon_threadsafe(self._arrived, digest, arrival, right)

    def _arrived(self, digest: Digest, arrival: Arrival, right: bool | None) -> None:
        del self._arrivals[digest]
        if arrival.file is not None:
            arrival.file.close()
            arrival.file = None
        if right is not None:
            self._proofs[digest] = arrival.proof
        arrival.proof.tell(arrival.proof.size if right else arrival.proof.hashed, right)
        self._begin()

    def close(self) -> None:
        """End the threads; what is being read is not read to its end."""
        self._ended = True
        self.opening.shutdown(wait=False, cancel_futures=True)
        self._hashing.shutdown(wait=False, cancel_futures=True)


class FilePassage:
    """See :class:`haversack.serving.answers.Passage`: a part of a blob's file."""

    def __init__(
        self, blobs: Blobs, digest: Digest, file: BinaryIO, proof: Proof, start: int, stop: int
    ) -> None:
        self._blobs, self._digest, self._file, self._proof = blobs, digest, file, proof
        self.start, self.stop = start, stop

    def fileno(self) -> int:
        """The open file."""
        return self._file.fileno()

    async def released(self, position: int) -> int:
        """See the protocol."""
        while True:
            if self._proof.problem is not None:
                raise self._proof.problem
            if self._proof.right is False or self.stop > self._proof.size:
                raise _damaged(self._digest)
            known = self.stop if self._proof.right else min(self.stop, self._proof.hashed)
            if known - HELD_BACK > position:
                return known - HELD_BACK
            if self._proof.right is None:
                await self._proof.further()
                continue
            status = os.fstat(self._file.fileno())
            if _stamp(status) == self._proof.stamp:
                return self.stop
            # Somebody touched the file since it was hashed, if only by a link to it: the last bytes wait.
            if status.st_size != self._proof.size:
                raise _damaged(self._digest)
            self._proof = self._blobs.proof(self._digest, self._file, _stamp(status), status.st_size)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _tell(loop: asyncio.AbstractEventLoop, proof: Proof, hashed: int, right: bool | None) -> None:
    try:
        loop.call_soon_threadsafe(proof.tell, hashed, right)
    except RuntimeError as problem:
        # The server ended while a blob was read.
        if not loop.is_closed():
            raise HaversackError(f"the event loop does not listen: {problem}") from problem


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _damaged(digest: Digest) -> IntegrityError:
    return IntegrityError(
        "is damaged and is not given away", where=digest, remedy="haversack doctor --drop-damaged"
    )
