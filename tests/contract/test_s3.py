"""A store, a ledger and files in S3, held to the contracts over two servers that have little in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from haversack.errors import FetchError
from haversack.model.artifact import Digest, hex_of
from haversack.model.bucket import Bucket
from haversack.ports import Ledger, Store
from haversack.ports.fetch import HttpFetch
from haversack.ports.s3fetch import S3Fetch
from haversack.ports.s3ledger import S3Ledger
from haversack.testing import FixedClock
from haversack.testing.contracts import (
    FetchBench,
    FetchContract,
    LedgerBench,
    LedgerContract,
    StoreBench,
    StoreContract,
)
from haversack.testing.contracts.fetch import BODY
from tests.support import s3


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """Each server in turn."""
    start = {"moto": s3.moto, "rclone": s3.rclone}[request.param]
    with pytest.MonkeyPatch.context() as patch, start(tmp_path_factory.mktemp(request.param)) as running:
        s3.scrub(patch)
        yield running


class TestS3Store(StoreContract):
    """The store in a bucket."""

    @pytest.fixture
    def bench(self, server: s3.Server, tmp_path: Path) -> StoreBench:
        """Each handle is a client of its own with an empty cache, as on each machine."""
        bucket = server.bucket()
        handles = iter(range(1000))

        def damage(_: Store, digest: Digest) -> None:
            key = f"blobs/sha256/{hex_of(digest)}"
            data = bytearray(server.object(bucket, key))
            data[len(data) // 2] ^= 1
            server.put(bucket, key, bytes(data))

        return StoreBench(lambda: server.store(bucket, tmp_path / f"cache-{next(handles)}"), damage)


class TestS3Ledger(LedgerContract):
    """The ledger in a bucket."""

    @pytest.fixture
    def bench(self, server: s3.Server, tmp_path: Path) -> LedgerBench:
        """A ledger that nothing was written to."""
        clock = FixedClock()
        bucket = server.bucket()

        def damage(_: Ledger) -> None:
            key = "haversack/ledger.jsonl"
            data = server.object(bucket, key).replace(b'"subject":"two"', b'"subject":"2"')
            server.put(bucket, key, data)

        return LedgerBench(S3Ledger(server.store(bucket, tmp_path / "cache"), clock), clock, damage)


class TestS3Fetch(FetchContract):
    """Files of a bucket."""

    @pytest.fixture
    def bench(self, server: s3.Server) -> FetchBench:
        """A file whose name has what names may have."""
        bucket = server.bucket("some files/a+b %41 ä.deb")
        server.put(Bucket(bucket.name, ""), bucket.path, BODY)
        url = f"s3://{bucket.name}/{quote(bucket.path)}"
        http = HttpFetch(lambda _: None, attempts=2, timeout=5, backoff=0.01)
        return FetchBench(S3Fetch(http, server.environ()), url, f"{url}.absent")

    def test_a_key_that_is_no_text_is_refused(self, bench: FetchBench) -> None:
        """What is percent-encoded is UTF-8, as the keys of objects are."""
        with pytest.raises(FetchError, match="no UTF-8"):
            bench.fetch.size("s3://bucket/%ff")
