"""A blob on its way into a bucket: hashed as it goes, and nothing there if it is not what it should be."""

from __future__ import annotations

import hashlib
import itertools
import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from haversack.errors import IntegrityError
from haversack.model.artifact import Digest, hex_of
from haversack.ports.s3client import explained

if TYPE_CHECKING:
    from haversack.ports.s3client import Client

# S3 takes at most 10,000 parts: blobs of up to 160 GiB.
PART = 1 << 24
_PARTS_AT_ONCE = 3
# Of large blobs at once in one process: each holds some parts in memory.
_LARGE = BoundedSemaphore(4)
_QUEUED = 8
_DOING = "adding a blob"


class _Abandoned(Exception):  # noqa: N818 - no error of its own
    """What stops an upload."""


def upload(client: Client, key: str, chunks: Iterable[bytes], digest: Digest, where: str) -> int:
    """Put a blob and return its size in bytes.  Other bytes than the digest's raise ``IntegrityError``.

    A small one is hashed before it is sent.  A large one goes in parts, which make no object before the last
    step; where the bytes turn out to be others, or ``chunks`` fails, the parts are thrown away instead.
    An error of the storage is a ``StoreError`` naming ``where``.
    """
    source, state, head = iter(chunks), hashlib.sha256(), bytearray()
    for chunk in source:
        head += chunk
        if len(head) > PART:
            break
    else:
        state.update(head)
        _compare(state.hexdigest(), digest)
        with explained(where, _DOING):
            client.put(key, bytes(head), use_multipart=False)
        return len(head)
    with _LARGE:
        return _in_parts(client, key, itertools.chain([bytes(head)], source), digest, where)


def _compare(found: str, digest: Digest) -> None:
    if found != hex_of(digest):
        raise IntegrityError("the bytes are not those that the digest names", where=digest)


def _in_parts(client: Client, key: str, chunks: Iterable[bytes], digest: Digest, where: str) -> int:
    """Upload from a thread of its own: the chunks are read in the caller's, where they may ask the store."""
    state, size = hashlib.sha256(), 0
    waiting: queue.Queue[bytes | _Abandoned | None] = queue.Queue(_QUEUED)

    def given() -> Iterator[bytes]:
        while (chunk := waiting.get()) is not None:
            if isinstance(chunk, _Abandoned):
                raise chunk
            yield chunk

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.put, key, given(), chunk_size=PART, max_concurrency=_PARTS_AT_ONCE)
        try:
            for chunk in chunks:
                state.update(chunk)
                size += len(chunk)
                if chunk and not _give(chunk, waiting, sent):
                    break
            else:
                _compare(state.hexdigest(), digest)
                _give(None, waiting, sent)
        except BaseException:
            _give(_Abandoned(), waiting, sent)
            raise
        with explained(where, _DOING):
            sent.result()
    return size


def _give(
    item: bytes | _Abandoned | None,
    waiting: queue.Queue[bytes | _Abandoned | None],
    sent: Future[Any],
) -> bool:
    """Hand on an item; false when nobody takes it any more, since the upload has failed."""
    while not sent.done():
        try:
            waiting.put(item, timeout=0.2)
        except queue.Full:
            continue
        return True
    return False
