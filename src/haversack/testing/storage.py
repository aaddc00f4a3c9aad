"""A store and a medium in memory."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from haversack.errors import IntegrityError, NotFoundError, SpaceError, StoreError
from haversack.formats import oci
from haversack.formats.canonical import canonical, parse
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.ports import Member, Seal, Watch

Content = dict[str, dict[str, bytes]]
"""A bundle's files: by volume, then by path, in the order in which a stream brings them."""


class MemoryStore:
    """A :class:`haversack.ports.Store` in memory, with room for ``capacity`` bytes of blobs.

    :meth:`path` has to give a file, so it writes one into a folder that goes when the store goes.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self._capacity = capacity
        self._blobs: dict[Digest, bytes] = {}
        self._index = canonical(oci.empty_index())
        self._state: dict[str, bytes] = {}
        self._holder = ""
        self._lock = threading.Lock()
        self._folder: Path | None = None

    def __str__(self) -> str:
        return "memory"

    def size(self, digest: Digest) -> int | None:
        """See the protocol."""
        data = self._blobs.get(digest)
        return None if data is None else len(data)

    def at_hand(self, digest: Digest) -> Path:
        """See the protocol: everything is here."""
        return self.path(digest)

    def copies(self) -> None:
        """See the protocol: blobs are files of its own."""

    def forget(self, digest: Digest) -> bool:
        """See the protocol: there is no copy."""
        return False

    def peek(self, digest: Digest) -> BinaryIO:
        """See the protocol."""
        return io.BytesIO(self._held(digest))

    def path(self, digest: Digest, *, watch: Watch | None = None) -> Path:
        """See the protocol; nothing is brought here, so ``watch`` is told nothing."""
        data = self._held(digest)
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="haversack-memory-"))
                weakref.finalize(self, shutil.rmtree, self._folder)
            file = self._folder / hex_of(digest)
            file.unlink(missing_ok=True)
            file.write_bytes(data)
            file.chmod(0o444)
        return file

    def open(self, digest: Digest) -> BinaryIO:
        """See the protocol."""
        return io.BufferedReader(_Checked(self._held(digest), digest))

    def add(
        self,
        digest: Digest,
        chunks: Iterable[bytes],
        *,
        linkable: Path | None = None,
        seal: Seal | None = None,
    ) -> int:
        """See the protocol; nothing in memory can be shared with a file, so ``linkable`` and ``seal`` are not looked at."""
        held = self.size(digest)
        if held is not None:
            return held
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) > self.free():
                raise SpaceError("no room left while adding a blob", where=str(self))
        if digest_of(bytes(data)) != digest:
            raise IntegrityError("the bytes are not those that the digest names", where=digest)
        with self._lock:
            self._blobs.setdefault(digest, bytes(data))
        return len(data)

    def remove(self, digest: Digest) -> int:
        """See the protocol."""
        with self._lock:
            return len(self._blobs.pop(digest, b""))

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """See the protocol."""
        with self._lock:
            found = sorted((digest, len(data)) for digest, data in self._blobs.items())
        yield from found

    def free(self) -> int:
        """See the protocol."""
        with self._lock:
            return self._capacity - sum(map(len, self._blobs.values()))

    def index(self) -> dict[str, Any]:
        """See the protocol."""
        value: dict[str, Any] = parse(self._index, "index.json", StoreError)
        return value

    def publish(self, index: Mapping[str, Any]) -> None:
        """See the protocol."""
        self._index = canonical(index)

    def read_state(self, name: str) -> bytes | None:
        """See the protocol."""
        return self._state.get(name)

    def write_state(self, name: str, data: bytes) -> None:
        """See the protocol."""
        self._state[name] = bytes(data)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """See the protocol."""
        with self._lock:
            if self._holder:
                raise StoreError(f"is in use by {self._holder}", where=str(self), remedy="wait for it to end")
            self._holder = threading.current_thread().name
        try:
            yield
        finally:
            self._holder = ""

    def damage(self, digest: Digest) -> None:
        """Flip one bit of a blob, as a bad disk does."""
        data = bytearray(self._held(digest))
        data[len(data) // 2] ^= 1
        self._blobs[digest] = bytes(data)

    def _held(self, digest: Digest) -> bytes:
        try:
            return self._blobs[digest]
        except KeyError:
            raise NotFoundError(f"the store does not hold {digest}", where=str(self)) from None


class _Checked(io.RawIOBase):
    """Bytes that are compared with their digest where a read reaches their end."""

    def __init__(self, data: bytes, digest: Digest) -> None:
        super().__init__()
        self._file = io.BytesIO(data)
        self._right = digest_of(data) == digest

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; the end of other bytes raises ``IntegrityError``."""
        count = self._file.readinto(buffer)
        if not count and len(buffer) and not self._right:
            raise IntegrityError("is not what its name says", remedy="receive the bundle again")
        return count


class MemoryWriter:
    """A :class:`haversack.ports.MediaWriter` whose ``content`` can be read once it is finished."""

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self._written: Content = {}
        self.content: Content = {}
        """Nothing before :meth:`finish`; then every file."""

    def free(self) -> int | None:
        """See the protocol."""
        if self._capacity is None:
            return None
        return self._capacity - sum(len(data) for files in self._written.values() for data in files.values())

    def write(self, volume: str, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """See the protocol."""
        data = b"".join(chunks)
        free = self.free()
        if free is not None and len(data) > free:
            raise SpaceError("no room left while writing the bundle", where="memory")
        self._written.setdefault(volume, {})[path] = data

    def finish(self) -> None:
        """See the protocol."""
        self.content = self._written


class MemoryMedia:
    """A :class:`haversack.ports.Media` over files in memory; ``streamed`` ones are read once and in turn.

    ``problems`` are members that no volume may hold, as (volume, path, what is wrong).
    """

    def __init__(
        self,
        content: Mapping[str, Mapping[str, bytes]],
        *,
        streamed: bool = False,
        problems: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self._content = content
        self._problems = tuple(problems)
        self.streamed = streamed

    def members(self) -> Iterator[Member]:
        """See the protocol."""
        for volume, files in self._content.items():
            for path, data in files.items():
                yield Member(volume, path, len(data), partial(_once, data))
        for volume, path, problem in self._problems:
            yield Member(volume, path, 0, partial(_once, b""), None, problem)


def _once(data: bytes) -> Iterator[bytes]:
    yield data
