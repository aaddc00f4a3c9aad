"""A store in a bucket that speaks S3, laid out as one on disk is.

    oci-layout  index.json  blobs/sha256/<hex>                what the OCI image layout says
    haversack/locks/  haversack/state/  haversack/ledger.jsonl    what it does not know

An object comes to be whole or not at all, and is durable when the answer to its PUT arrives: there is no
staging.  Nothing here relies on conditions (``If-Match``) or ranges, which some servers ignore.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from haversack.errors import FormatError, HaversackError, NotFoundError, StoreError
from haversack.formats import oci
from haversack.formats.canonical import canonical, parse
from haversack.model.artifact import Digest, hex_of, is_digest
from haversack.model.bucket import Bucket
from haversack.ports import UNKNOWN_ROOM, Seal, Watch
from haversack.ports.blobcache import BlobCache
from haversack.ports.disk import CHUNK, Checked
from haversack.ports.s3client import connect, explained, refused, whole
from haversack.ports.s3lease import Lease
from haversack.ports.s3read import PORTION, Arriving, parts
from haversack.ports.s3upload import upload

if TYPE_CHECKING:
    from haversack.ports.s3client import Client

_BLOBS = "blobs/sha256/"
_STATE = "haversack/state/"
_PATIENCE = 1.0  # seconds for another writer to end
_MAKING = 30.0  # seconds for another one to make the store
# So many questions after single blobs are asked one by one; then all are listed.
_SINGLE = 32
_LISTED = 30.0  # seconds for which an absence is believed
_NEVER = float("-inf")


class S3Store:
    """The store at ``bucket``; see :class:`haversack.ports.Store` for what each method promises.

    ``environ`` says who asks (:mod:`haversack.ports.s3client`); ``cache`` keeps local copies for
    :meth:`path`.  What ``size`` found it remembers, until the store is held for writing.
    """

    def __init__(
        self,
        bucket: Bucket,
        environ: Mapping[str, str],
        cache: BlobCache,
        *,
        create: bool = False,
        retries: int = 6,
    ) -> None:
        self.bucket = bucket
        self.client: Client = connect(bucket, environ, retries=retries)
        self._cache = cache
        self.lease = Lease(self.client, "store", str(bucket))
        self._turn = threading.Lock()
        self._sizes: dict[Digest, int] = {}
        self._asked, self._since, self._listed = 0, _NEVER, _NEVER
        self._tag: str | None = None
        layout = self.read("oci-layout", "opening the store")
        if layout is None and create:
            layout = self._create()
        if layout is None:
            raise StoreError(
                "there is no store here", where=str(bucket), remedy="give --store or set HAVERSACK_STORE"
            )
        found = parse(layout, f"{bucket}/oci-layout", StoreError)
        if not isinstance(found, dict) or found.get("imageLayoutVersion") != "1.0.0":
            raise FormatError("is of another OCI layout version than 1.0.0", where=f"{bucket}/oci-layout")

    def _create(self) -> bytes:
        """Make the store, unless somebody else has made it meanwhile; what its ``oci-layout`` says."""
        with self.lease.held(_MAKING):
            layout = self.read("oci-layout", "opening the store")
            if layout is not None:
                return layout
            if self.read("index.json", "making the store") is None:
                self.write("index.json", canonical(oci.empty_index()), "making the store")
            # Last, since it is what makes the folder a store.
            self.write("oci-layout", oci.LAYOUT_FILE, "making the store")
        return oci.LAYOUT_FILE

    def __str__(self) -> str:
        return str(self.bucket)

    def read(self, key: str, doing: str, error: type[HaversackError] = StoreError) -> bytes | None:
        """All bytes of a small object, ``None`` if there is none."""
        try:
            with explained(self._at(key), doing, error):
                return whole(self.client, key)
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes, doing: str, error: type[HaversackError] = StoreError) -> None:
        """Replace a small object."""
        with explained(self._at(key), doing, error):
            self.client.put(key, data, use_multipart=False)

    def _at(self, key: str) -> str:
        return f"{self.bucket}/{key}"

    def size(self, digest: Digest) -> int | None:
        """See the protocol."""
        with self._turn:
            if (held := self._sizes.get(digest)) is not None:
                return held
            now = time.monotonic()
            if now - self._since > _LISTED:
                self._asked, self._since = 0, now
            self._asked += 1
            many = self._asked > _SINGLE
            # While the store is held here, nobody else adds to it.
            if many and (now - self._listed < _LISTED or (self.lease.active and self._listed > _NEVER)):
                return None
        if many:
            for _ in self.blobs():
                """Every one is remembered."""
            with self._turn:
                return self._sizes.get(digest)
        try:
            with explained(str(self.bucket), "asking for a blob"):
                size = int(self.client.head(_key(digest))["size"])
        except FileNotFoundError:
            return None
        with self._turn:
            self._sizes[digest] = size
        return size

    def path(self, digest: Digest, *, watch: Watch | None = None) -> Path:
        """See the protocol: a copy in the cache, hashed on its way there, or when this process asks first."""
        return self._cache.get(digest, lambda: self._chunks(digest), watch=watch)

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        with self._open(digest, PORTION) as file:
            while chunk := file.read1(PORTION):
                yield chunk

    def at_hand(self, digest: Digest) -> Path | None:
        """See the protocol: a copy that is in the cache."""
        return self._cache.held(digest)

    def copies(self) -> Iterator[Digest]:
        """See the protocol: the cache is shared by all buckets, and known by digests alone."""
        return self._cache.digests()

    def forget(self, digest: Digest) -> bool:
        """See the protocol."""
        self._cache.drop(digest)
        return True

    def peek(self, digest: Digest) -> BinaryIO:
        """See the protocol: parts of the bucket's object, of servers that give parts."""
        if held := self._cache.held(digest):
            with contextlib.suppress(FileNotFoundError):
                return held.open("rb")
        size = self.size(digest)
        if size is None:
            raise self._absent(digest)
        try:
            return parts(self.client, _key(digest), size, self._at(_key(digest)))
        except StoreError:
            # Some servers ignore ranges.
            return self._cache.open(digest, lambda: self._chunks(digest))

    def open(self, digest: Digest) -> BinaryIO:
        """See the protocol; it is the bucket's object that is read, whatever copy is here."""
        return self._open(digest, CHUNK)

    def _open(self, digest: Digest, portion: int) -> io.BufferedReader:
        where = self._at(_key(digest))
        try:
            with explained(str(self.bucket), "reading a blob"):
                chunks = iter(self.client.get(_key(digest)).stream(min_chunk_size=portion))
        except FileNotFoundError:
            raise self._absent(digest) from None
        return io.BufferedReader(Checked(Arriving(chunks, where), digest, where), portion)

    def _absent(self, digest: Digest) -> NotFoundError:
        with self._turn:
            self._sizes.pop(digest, None)
        return NotFoundError(f"the store does not hold {digest}", where=str(self.bucket))

    def add(
        self,
        digest: Digest,
        chunks: Iterable[bytes],
        *,
        linkable: Path | None = None,
        seal: Seal | None = None,
    ) -> int:
        """See the protocol; nothing is shared with a file, so ``linkable`` and ``seal`` are not looked at."""
        present = self.size(digest)
        if present is not None:
            return present
        size = upload(self.client, _key(digest), chunks, digest, str(self.bucket))
        with self._turn:
            self._sizes[digest] = size
        return size

    def remove(self, digest: Digest) -> int:
        """See the protocol."""
        if self.lease.active:
            self.lease.confirm()
        size = self.size(digest)
        if size is None:
            return 0
        with explained(str(self.bucket), "removing a blob"):
            self.client.delete(_key(digest))
        self._cache.drop(digest)
        with self._turn:
            self._sizes.pop(digest, None)
        return size

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """See the protocol."""
        began = time.monotonic()
        with explained(str(self.bucket), "listing blobs"):
            # Whatever else lies there, somebody else put there: it is not ours to list or to prune.
            found = {
                f"sha256:{name}": int(entry["size"])
                for page in self.client.list(_BLOBS)
                for entry in page
                if is_digest(f"sha256:{(name := entry['path'].rpartition('/')[2])}")
                and entry["path"] == _BLOBS + name
            }
        with self._turn:
            self._sizes.update(found)
            self._listed = began
        yield from sorted(found.items())

    def free(self) -> int:
        """See the protocol; a server does not say."""
        return UNKNOWN_ROOM

    def index(self) -> dict[str, Any]:
        """See the protocol."""
        where = self._at("index.json")
        with self._turn:
            # What a new index names may have come after the blobs were listed.
            self._listed = _NEVER
        data = self.read("index.json", "reading the index")
        value = None if data is None else parse(data, where, StoreError)
        if not isinstance(value, dict) or not isinstance(value.get("manifests"), list):
            raise StoreError("is not an OCI index", where=where, remedy="restore it from a backup")
        return value

    def publish(self, index: Mapping[str, Any]) -> None:
        """See the protocol.  Every blob was durable when ``add`` returned."""
        data = canonical(index)
        if not self.lease.active:
            self.write("index.json", data, "publishing the index")
            return
        self.lease.confirm()
        try:
            with explained(self._at("index.json"), "publishing the index"):
                # A second belt, on servers that know conditions: only over the index that was there.
                put = self.client.put("index.json", data, mode={"e_tag": self._tag} if self._tag else None)
        except StoreError:
            # The answer to a first try may have been lost, and a second one finds its own index.
            if self.read("index.json", "reading the index") != data:
                raise
        else:
            self._tag = put["e_tag"]

    def read_state(self, name: str) -> bytes | None:
        """See the protocol."""
        return self.read(_STATE + name, "reading")

    def write_state(self, name: str, data: bytes) -> None:
        """See the protocol."""
        self.write(_STATE + name, data, "writing")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """See the protocol.  A lease that was lost stops the act before it removes or publishes anything."""
        with self.lease.held(_PATIENCE):
            with self._turn:
                # What another writer removed meanwhile is not here any more.
                self._sizes.clear()
                self._asked, self._listed = 0, _NEVER
            with explained(self._at("index.json"), "reading the index"):
                self._tag = self.client.head("index.json")["e_tag"]
            yield

    def writable(self) -> bool:
        """Whether these keys may write here, found out by an object that is removed again."""
        key = f"haversack/trial-{os.urandom(8).hex()}"
        try:
            self.write(key, b"", "trying to write")
            with explained(self._at(key), "trying to write"):
                self.client.delete(key)
        except HaversackError as problem:
            if refused(problem):
                return False
            raise
        return True


def _key(digest: Digest) -> str:
    return _BLOBS + hex_of(digest)
