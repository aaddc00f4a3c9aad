"""The bytes of a view's pages: what an export writes and a server sends where it is not simply a blob."""

from __future__ import annotations

import re
from typing import BinaryIO

from haversack.errors import IntegrityError
from haversack.formats.wheel import TEXT_LIMIT
from haversack.formats.zipped import BrokenZipError, content, directory
from haversack.model.artifact import Digest, digest_of
from haversack.ports import Store
from haversack.views import Page

_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")


def body(page: Page, store: Store) -> bytes:
    """All bytes of a page, hashed where they come from a blob.

    For small pages: ``data``, the ``METADATA`` of a wheel, a slice.  Whole blobs are better sent from
    ``store.path``.  Raises ``NotFoundError`` without the blob, and ``IntegrityError`` where a blob, or the
    metadata in it, is not what its digest says.
    """
    if page.blob is None:
        return page.data or b""
    if page.metadata is None:
        with store.open(page.blob) as file:
            return file.read()[page.start :]
    try:
        with store.peek(page.blob) as file:
            return _metadata(file, page.blob, page.metadata)
    except IntegrityError:
        if not store.forget(page.blob):
            raise
    # It may have been a copy that rotted.
    with store.peek(page.blob) as file:
        return _metadata(file, page.blob, page.metadata)


def _metadata(wheel: BinaryIO, blob: Digest, digest: Digest) -> bytes:
    """The one ``METADATA`` of a wheel: only those bytes are read, and their own digest vouches for them."""
    try:
        for member, limit in directory(wheel)[0]:
            if _METADATA.fullmatch(member.orig_filename) and member.file_size <= TEXT_LIMIT:
                data = b"".join(content(wheel, member, limit))
                if digest_of(data) == digest:
                    return data
    except BrokenZipError as problem:
        raise IntegrityError(f"its metadata cannot be read: {problem}", where=blob) from problem
    raise IntegrityError(f"holds no METADATA of the digest {digest}", where=blob)
