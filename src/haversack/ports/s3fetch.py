"""Files from buckets that speak S3, by signed URLs: resumed, retried and hashed as every other file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from haversack.errors import FetchError, IntegrityError, SpaceError, StoreError
from haversack.model.artifact import Digest
from haversack.model.bucket import Bucket, bucket_of
from haversack.ports import Fetch
from haversack.ports.s3client import signed


class S3Fetch:
    """The part of :class:`haversack.ports.Fetch` for ``s3://bucket/key``, over one that fetches http(s).

    ``environ`` says who asks (:mod:`haversack.ports.s3client`).  The signed URL is known to nobody else:
    errors name the ``s3://`` one.
    """

    def __init__(self, http: Fetch, environ: Mapping[str, str]) -> None:
        self._http, self._environ = http, environ

    def size(self, url: str) -> int | None:
        """See the protocol."""
        with _named(url) as bucket:
            return self._http.size(signed(bucket, self._environ, "HEAD"))

    def get(
        self, url: str, digest: Digest, dest: Path, on_bytes: Callable[[int], None], size: int | None = None
    ) -> int:
        """See the protocol."""
        told = 0

        def count(more: int) -> None:
            nonlocal told
            told += more
            on_bytes(more)

        with _named(url) as bucket:
            source, held = signed(bucket, self._environ, "GET"), dest.exists()
            try:
                return self._http.get(source, digest, dest, count, size=size)
            except IntegrityError:
                # Some servers give a part of the file when asked for one, and call it the whole.
                if not held:
                    raise
                on_bytes(-told)
                return self._http.get(source, digest, dest, on_bytes, size=size)

    def take(self, url: str, dest: Path, on_bytes: Callable[[int], None]) -> Digest:
        """See the protocol."""
        with _named(url) as bucket:
            return self._http.take(signed(bucket, self._environ, "GET"), dest, on_bytes)


@contextmanager
def _named(url: str) -> Iterator[Bucket]:
    """The object of a URL, whose key may be percent-encoded (RFC 3986 §2.1); what goes wrong is said of that URL."""
    try:
        bucket = bucket_of(url)
        bucket = replace(bucket, path=unquote(bucket.path, errors="strict"))
    except UnicodeDecodeError:
        raise FetchError("is percent-encoded, and no UTF-8 once it is decoded", where=url) from None
    except ValueError as problem:
        raise FetchError(str(problem), where="an s3:// URL") from None
    if not bucket.path:
        raise FetchError("names a bucket and no file in it", where=url)
    try:
        yield bucket
    except SpaceError:
        raise
    except StoreError as problem:
        raise FetchError(problem.message, where=problem.where, remedy=problem.remedy) from None
    except IntegrityError as problem:
        raise IntegrityError(problem.message, where=url, remedy=problem.remedy) from None
    except FetchError as problem:
        remedy = problem.remedy
        if " 403 " in f"{problem.message} ":
            remedy = "check the AWS_… variables and what these keys may read"
        raise FetchError(problem.message, where=url, remedy=remedy) from None
