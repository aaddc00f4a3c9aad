"""The live server over a store in a bucket: bytes leave while they still arrive, and nothing rotten is whole."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import urljoin

import pytest

from haversack.errors import NotFoundError
from haversack.model.artifact import Digest, digest_of, hex_of
from haversack.model.bucket import Bucket
from haversack.model.lock import LockedEnvironment
from haversack.ports import Store, Watch
from haversack.ports.blobcache import BlobCache
from haversack.ports.s3 import S3Store
from haversack.serving.blobs import HELD_BACK, Blobs
from haversack.serving.http import Patience
from haversack.verbs.pages import body
from haversack.views import Page
from tests.support import s3
from tests.support.live import InThread, ask
from tests.support.viewing import stocked, wheel_of
from tests.support.wheels import make_wheel

HALF = 4 << 20


class Valve:
    """A way to a server that lets ``limit`` bytes of each connection's answers through, and no more until it opens.

    ``carried`` counts the bytes of all of them.
    """

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.rpartition("/")[2].split(":")
        self._behind = host, int(port)
        self.limit, self.carried = 1 << 40, 0
        self._open = threading.Event()
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def release(self) -> None:
        """Let everything through from now on."""
        self._open.set()

    def cut(self) -> None:
        """Break every connection there is; new ones are let through."""
        for one in self._sockets:
            _shut(one)
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._behind)
            self._sockets += [client, server]
            for words in ((client, server, False), (server, client, True)):
                self._threads.append(threading.Thread(target=self._carry, args=words))
                self._threads[-1].start()

    def _carry(self, source: socket.socket, to: socket.socket, counted: bool) -> None:
        passed = 0
        try:
            while data := source.recv(32 << 10):
                if counted and passed + len(data) > self.limit:
                    self._open.wait()
                passed += len(data)
                self.carried += len(data) if counted else 0
                to.sendall(data)
        except OSError:
            """One of the two went away."""
        _shut(to)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        """The other side was faster."""


class Site:
    """A bucket behind a valve, and a server over it whose cache is empty."""

    def __init__(self, buckets: Path, wheel: Path, folder: Path) -> None:
        self.wheel, self.data = wheel, wheel.read_bytes()
        self.digest = digest_of(self.data)
        self.object = buckets / "lab" / "site" / "blobs" / "sha256" / hex_of(self.digest)
        self.cache = folder / "cache"
        self.path = f"upstream/files.example.org/{wheel.name}"
        artifact = wheel_of(wheel, origin=f"https://files.example.org/{wheel.name}")
        disk = buckets / "lab" / "site"
        stocked(disk, [LockedEnvironment("lab", "node", "pip")], [artifact], [self.data])
        self._folder = folder

    @contextlib.contextmanager
    def served(self, server: s3.Server) -> Iterator[Self]:
        """Serve."""
        with Valve(server.endpoint) as self.valve:
            environ = server.environ(AWS_ENDPOINT_URL=self.valve.endpoint)
            self.store = S3Store(Bucket("lab", "site"), environ, BlobCache(self.cache, 1 << 30), retries=0)
            with InThread(self.store, self._folder / "live", Patience()) as self.live:
                self.url = "http://{}:{}/".format(*self.live.place)
                assert ask(f"{self.url}pypi/simple/demo/").status == 200
                yield self
                self.valve.release()

    @contextlib.contextmanager
    def get(self, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """Ask for the wheel; head and first bytes are awaited, the rest is for the caller to read."""
        with contextlib.closing(http.client.HTTPConnection(*self.live.place, timeout=20)) as connection:
            connection.request("GET", f"/{self.path}", headers=headers)
            with connection.getresponse() as answer:
                yield answer


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large wheel."""
    noise = random.Random(0).randbytes(2 * HALF).hex()
    return make_wheel(tmp_path_factory.mktemp("wheel"), "demo", "1.0", modules={"demo/noise.txt": noise})


@pytest.fixture
def site(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A bucket with that wheel."""
    s3.scrub(monkeypatch)
    site = Site(tmp_path / "s3" / "buckets", wheel, tmp_path)
    with s3.rclone(tmp_path / "s3") as server, site.served(server):
        yield site


def test_bytes_leave_before_the_last_has_arrived(site: Site) -> None:
    """The first half is with the client while the bucket holds back the second; then the rest follows."""
    site.valve.limit = HALF
    with site.get() as answer:
        assert int(answer.headers["Content-Length"]) == len(site.data)
        # What is on its way: pieces of the valve, of the store, and what is held back.
        first = answer.read(HALF - HELD_BACK - (256 << 10))
        assert not (site.cache / hex_of(site.digest)).exists()
        site.valve.release()
        assert first + answer.read() == site.data
    assert (site.cache / hex_of(site.digest)).read_bytes() == site.data


def test_many_who_ask_share_one_arrival(site: Site) -> None:
    """Four clients and one that asks for a part, all before the blob is here, cost it once; later ones nothing."""
    site.valve.limit, before = HALF, site.valve.carried
    found: list[bytes] = []

    def ask_for(**headers: str) -> None:
        with site.get(**headers) as answer:
            found.append(answer.read())

    threads = [threading.Thread(target=ask_for) for _ in range(4)]
    threads.append(threading.Thread(target=ask_for, kwargs={"Range": "bytes=-10"}))
    for thread in threads:
        thread.start()
    with site.get() as answer:
        answer.read(1 << 20)
    # Whoever goes away does not end it for the others.
    site.valve.release()
    for thread in threads:
        thread.join()
    assert sorted(found, key=len) == [site.data[-10:], *[site.data] * 4]
    ask_for()
    assert site.valve.carried - before < 1.5 * len(site.data)


def test_metadata_is_read_in_parts(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata in a wheel, which clients ask for first, comes without the wheel."""
    s3.scrub(monkeypatch)
    artifact = wheel_of(wheel)
    with s3.moto(tmp_path) as server, Valve(server.endpoint) as valve:
        cache = BlobCache(tmp_path / "cache", 1 << 30)
        environ = server.environ(AWS_ENDPOINT_URL=valve.endpoint)
        store = S3Store(server.bucket(), environ, cache, create=True, retries=0)
        store.add(artifact.digest, [wheel.read_bytes()])
        before = valve.carried
        metadata = Digest(f"sha256:{artifact.facts['metadata_sha256']}")
        page = Page("text/plain", None, blob=artifact.digest, metadata=metadata)
        assert body(page, store).startswith(b"Metadata-Version")
        assert valve.carried - before < 1 << 20
        assert store.at_hand(artifact.digest) is None
        assert store.peek(artifact.digest).read() == wheel.read_bytes()
        with pytest.raises(NotFoundError):
            store.peek(digest_of(b"nobody"))


def test_metadata_comes_from_servers_that_ignore_ranges(site: Site) -> None:
    """Such a one is asked for the whole wheel, once."""
    page = f"{site.url}pypi/simple/demo/"
    link = ask(page).body.decode().split('href="')[1].partition("#")[0]
    metadata = ask(f"{urljoin(page, link)}.metadata")
    assert metadata.body.startswith(b"Metadata-Version")
    assert site.store.at_hand(site.digest)


@pytest.mark.parametrize("cut", [0, 1, HALF])
def test_what_rotted_in_a_bucket_never_ends(site: Site, cut: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte was flipped, or the end is not there: the answer breaks off, the next ones are errors, log and numbers tell."""
    data = bytearray(site.data)
    data[-200_000] ^= 1
    data[len(data) - cut :] = b""
    site.object.chmod(0o644)
    site.object.write_bytes(data)
    with site.get() as answer, pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    before = site.valve.carried
    assert ask(site.url + site.path).status == 500
    assert site.valve.carried - before < 1 << 16
    assert not (site.cache / hex_of(site.digest)).exists()
    assert site.digest in site.live.app.metrics.damaged
    assert f"blob {site.digest} is damaged" in capsys.readouterr().err


def test_a_copy_that_rotted_is_brought_anew(site: Site) -> None:
    """A byte of the copy in the cache was flipped: a client's answer breaks off or is right, and the next are right."""
    assert ask(site.url + site.path).body == site.data
    copy = site.cache / hex_of(site.digest)
    for place in (1000, len(site.data) - 1000):
        data = bytearray(site.data)
        data[place] ^= 1
        copy.chmod(0o644)
        copy.write_bytes(data)
        # A part leaves only after the whole was hashed, so nobody sees that it was wrong.
        assert ask(site.url + site.path, range="bytes=990-1010").body == site.data[990:1011]
        assert ask(site.url + site.path).body == site.data
        assert copy.read_bytes() == site.data
    copy.write_bytes(bytes(len(site.data)))
    with site.get() as answer, contextlib.suppress(http.client.IncompleteRead, ConnectionResetError):
        assert answer.read() == site.data
    assert ask(site.url + site.path).body == site.data
    assert not site.live.app.metrics.damaged


class Far:
    """A store whose blobs take until ``come`` is set; what was asked for, in order."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.asked: list[Digest] = []

    def size(self, digest: Digest) -> int:
        """One byte."""
        return 1

    def at_hand(self, digest: Digest) -> None:
        """Nothing is here."""

    def path(self, digest: Digest, *, watch: Watch | None = None) -> Path:
        """Nothing comes."""
        self.asked.append(digest)
        self.come.wait()
        raise NotFoundError("is gone")


def test_threads_are_bounded_and_who_went_away_is_forgotten() -> None:
    """Clients that ask for thousands of cold blobs cost some threads; those not begun go with their clients."""
    store = Far()

    async def everything() -> None:
        blobs, before = Blobs(cast(Store, store), print), threading.active_count()
        digests = [digest_of(str(n).encode()) for n in range(1000)]
        for _ in range(2):
            tasks = [asyncio.create_task(blobs.passage(d, 0, None, whole=False)) for d in digests]
            while len(store.asked) < 32:
                await asyncio.sleep(0.01)
            assert threading.active_count() - before < 50
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        last = asyncio.create_task(blobs.passage(digests[-1], 0, None, whole=False))
        await asyncio.sleep(0)
        store.come.set()
        with pytest.raises(NotFoundError):
            await asyncio.wait_for(last, 20)
        assert len(store.asked) == 33
        blobs.close()
        blobs.opening.shutdown()

    asyncio.run(everything())


def test_a_bucket_that_breaks_off_is_no_damage(site: Site) -> None:
    """The connection to the bucket breaks: so does the answer, and whoever asks again gets everything."""
    site.valve.limit = HALF
    with site.get() as answer:
        answer.read(1 << 20)
        site.valve.cut()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
    assert not site.live.app.metrics.damaged
    assert ask(site.url + site.path).body == site.data
