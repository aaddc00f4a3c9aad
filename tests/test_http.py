"""HTTP/1.1 as the live server speaks it: strict heads, connections, ranges, and clients that are slow."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from haversack.model.artifact import digest_of
from haversack.ports.disk import DiskStore
from haversack.serving.answers import accepts_gzip, matches, part, preferred
from haversack.serving.http import Patience
from haversack.serving.requests import RefusedError, Request, decoded, parse
from haversack.serving.routes import find
from haversack.verbs.ca import CA
from haversack.views import Union
from tests.support.live import InThread, Live
from tests.support.tiny import Tiny, haversack, tiny_bundle

HEAD = b"GET /a%20b?n=1&last=x+y HTTP/1.1\r\nHost: mirror.example:80\r\nAccept:  a \r\naccept: b\r\n\r\n"


def test_a_head_is_read_whole() -> None:
    """Method, path, query and fields of a request are what was sent, each decoded once."""
    request = parse(HEAD)
    assert (request.method, request.path, request.raw) == ("GET", "/a b", "/a%20b")
    assert request.query == {"n": "1", "last": "x y"}
    assert request.header("accept") == "a, b"
    assert request.keep
    assert not request.body


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 100 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(head: bytes, status: int) -> None:
    """A head that two readers could take for different requests, or for none, is answered with an error."""
    with pytest.raises(RefusedError) as refused:
        parse(head)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 16_000 + b"\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b"\t " * 8_000 + b"a" + b" " * 300 + b"\x7f\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 16_000 + b"/\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a" + b":1" * 8_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 16_000 + b"\r\n\r\n",
        b"G" * 16_000 + b"\r\n\r\n",
        b"GET /" + b"%" * 8_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_a_head_is_refused_as_quickly_as_it_is_read(head: bytes) -> None:
    """No head of 16 KiB keeps the server busy: what is wrong at its end is found in one pass."""
    begun = time.process_time()
    with pytest.raises(RefusedError):
        parse(head)
    assert time.process_time() - begun < 0.2


def test_values_are_read_as_quickly_as_heads() -> None:
    """The fields and paths that are looked at closer take one pass as well, at their longest."""
    long = 16_000
    view = Union({})
    begun = time.process_time()
    for value in ("bytes=" + " " * long + "x", "bytes=" + "0" * long + "x", "bytes=0-" + "\t" * long + "x"):
        assert part(ranged(value), '"e"', 10) is None
    for value in ("gzip;" + " " * long + "x", "gzip;q=0." + "0" * long + "x"):
        accepts_gzip(value)
        preferred(value, ("text/html",))
    for name in (
        "a" * 8000 + "!",
        "a-" * 4000 + "!",
        "a" + "-" * 8000,
        "a/" * 4000,
        "a" + "_" * 8000,
        "a.b/" * 2000,
    ):
        for what in ("manifests/1", "blobs/x", "tags/list", "manifests/1/" * 100):
            find(view, f"v2/{name}/{what}", Request("GET", "/", "/"))
        find(view, f"pypi/simple/{name}", Request("GET", "/", "/"))
    assert time.process_time() - begun < 3.0


@pytest.mark.parametrize(
    "raw",
    [
        "/%2e%2e/x",
        "/a/../b",
        "/./a",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a%00",
        "/a%0a",
        "/%zz",
        "/%",
        "/%ff",
    ],
)
def test_a_path_leads_nowhere_else(raw: str) -> None:
    """Dots, encoded separators, control characters and broken encodings are refused before anything is looked up."""
    with pytest.raises(RefusedError):
        decoded(raw)


def test_a_path_is_decoded_once() -> None:
    """What was encoded twice is the name of a file with a percent sign, which no view has."""
    assert decoded("/%252e%252e/a+b") == "/%2e%2e/a+b"


def test_a_proxy_may_ask_by_the_whole_address() -> None:
    """The absolute form of an address means its path."""
    assert parse(b"GET http://mirror.example/a?b=c HTTP/1.1\r\nHost: a\r\n\r\n").path == "/a"


def test_http_1_0_closes_unless_it_asks() -> None:
    """A client of the older version needs no Host and its connection ends, or it says keep-alive."""
    assert not parse(b"GET / HTTP/1.0\r\n\r\n").keep
    assert parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep
    assert not parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").keep


def ranged(value: str, **more: str) -> Request:
    """A request for a part."""
    return Request(
        "GET", "/", "/", headers={"range": value, **{k.replace("_", "-"): v for k, v in more.items()}}
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-4", (0, 5)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=4-400", (4, 10)),
        ("BYTES=1-1", (1, 2)),
        ("bytes=0-1,4-5", None),
        ("bytes=4-2", None),
        ("lines=0-1", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("", None),
    ],
)
def test_a_range_is_one_part_or_all(value: str, expected: tuple[int, int] | None) -> None:
    """One range of bytes gives that part; several, other units and nonsense give the whole."""
    assert part(ranged(value), '"e"', 10) == expected


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=-0", "bytes=99-100", "bytes=" + "9" * 30 + "-"])
def test_a_range_beyond_the_end_is_told(value: str) -> None:
    """A range that the page does not have is an error of its own."""
    with pytest.raises(ValueError, match="page"):
        part(ranged(value), '"e"', 10)


def test_a_range_of_another_version_is_the_whole() -> None:
    """If-Range with another entity tag, or a date, gives the whole page."""
    assert part(ranged("bytes=1-2", if_range='"e"'), '"e"', 10) == (1, 3)
    assert part(ranged("bytes=1-2", if_range='"other"'), '"e"', 10) is None


def test_media_types_are_chosen_by_weight() -> None:
    """The form that a client likes best is given; without any liking the first."""
    offered = ("text/html", "application/vnd.pypi.simple.v1+json")
    assert (
        preferred("", offered) == preferred("image/png", offered) == preferred("*/*", offered) == "text/html"
    )
    assert preferred("application/vnd.pypi.simple.v1+json, text/html;q=0.9", offered) == offered[1]
    assert preferred("application/*;q=0.2, text/html;q=0.1", offered) == offered[1]
    assert preferred("application/vnd.pypi.simple.v1+json;q=x, text/html;q=0.1", offered) == "text/html"
    assert [accepts_gzip(v) for v in ("gzip", "br, gzip;q=0.5", "gzip;q=0", "br", "")] == [True, True] + [
        False
    ] * 3
    assert matches('W/"e", "f"', '"e"')
    assert matches("*", '"e"')
    assert not matches('"f"', '"e"')


# Connections


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A store with a snapshot."""
    return tiny_bundle(tmp_path_factory.mktemp("store"), padding=3_000_000)


@pytest.fixture(scope="module")
def live(made: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server over it."""
    with Live(made.store, tmp_path_factory.mktemp("live")) as server:
        yield server


PAGE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_requests_in_a_row_are_answered_in_order(live: Live) -> None:
    """Requests sent without waiting get their answers in turn, fast ones and slow ones, on one connection."""
    index = b"GET /pypi/simple/alpha/ HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(2):
        text = live.raw(index + PAGE + index + PAGE * 50 + index + LAST)
        assert text.count(b"HTTP/1.1 200 OK") == 55
        order = [b"Links for alpha" in piece for piece in text.split(b"HTTP/1.1 200 OK")[1:]]
        assert order == [True, False, True] + [False] * 50 + [True, False]
        assert text.endswith(b"ok\n")


def test_a_request_may_arrive_in_pieces(live: Live) -> None:
    """A head that comes byte by byte is the same request; lines before it that are empty are no matter."""
    host, port = live.url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\r\n" + LAST:
            one.sendall(bytes([byte]))
        found = b""
        while chunk := one.recv(4096):
            found += chunk
    assert found.startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_says_no_more_still_gets_its_answers(live: Live) -> None:
    """A half-closed connection is answered to its end."""
    host, port = live.url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(b"GET /pypi/simple/ HTTP/1.1\r\nHost: a\r\nX: half\r\n\r\n" + PAGE)
        one.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := one.recv(4096):
            found += chunk
    assert found.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"X" * 20000, 431),
        (b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000, 405),
        (
            b"POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            405,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", 413),
        (b"BREW /pot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
    ],
)
def test_what_cannot_be_answered_ends_the_connection(live: Live, data: bytes, status: int) -> None:
    """An error is said, what follows on the connection is not taken for a request, and the connection ends."""
    text = live.raw(data)
    assert text.startswith(f"HTTP/1.1 {status} ".encode())
    assert text.count(b"HTTP/1.1 ") == 1
    if status == 405:
        assert b"Allow: GET, HEAD" in text


def test_head_tells_what_get_gives(live: Live) -> None:
    """HEAD gives the head of GET, for a page from memory and for a file, and no body."""
    for path in ("pypi/simple/alpha/", "v2/"):
        got, told = live.get(path), live.raw(f"HEAD /{path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = told.partition(b"\r\n\r\n")
        assert body == b""
        assert f"Content-Length: {got.headers['content-length']}".encode() in head


IMPATIENT = Patience(head=0.5, idle=1.5, linger=0.5, slow=1.0, drain=2.0)


def test_clients_that_say_nothing_are_let_go(made: Tiny, tmp_path: Path) -> None:
    """Half a head is answered with 408, silence with the end, and who was answered once may be idle longer."""
    with InThread(DiskStore(made.store), tmp_path, IMPATIENT) as server:
        half, silent, idle = server.connect(), server.connect(), server.connect()
        with half, silent, idle:
            half.sendall(b"GET / HTTP/1.1\r\nHo")
            idle.sendall(PAGE)
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
            begun = time.monotonic()
            assert half.recv(4096).startswith(b"HTTP/1.1 408")
            assert silent.recv(10) == b""
            assert idle.recv(10) == b""
            assert 1.0 < time.monotonic() - begun < 10


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    """A download that stands still ends, and its file is closed; one that goes slowly on does not end."""
    made = tiny_bundle(tmp_path / "site", names=("alpha",), padding=24_000_000)
    wheel = next(made.wheels.iterdir())
    digits = digest_of(wheel.read_bytes()).removeprefix("sha256:")
    path = f"/pypi/files/{digits[:2]}/{digits}/{wheel.name}"
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    with InThread(DiskStore(made.store), tmp_path, IMPATIENT) as server:
        with server.connect() as still, server.connect() as slow:
            still.sendall(request)
            slow.sendall(request)
            found, end = 0, time.monotonic() + 4
            while time.monotonic() < end:
                found += len(slow.recv(100_000))
                time.sleep(0.02)
            assert found < wheel.stat().st_size
            cut = _all(still)
            found += _all(slow)
        assert cut < wheel.stat().st_size < found
        for _ in range(100):
            if digits not in "".join(map(_target, Path("/proc/self/fd").iterdir())):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("a file is still open")


def test_a_client_that_asks_and_never_reads_is_not_listened_to(made: Tiny, tmp_path: Path) -> None:
    """Requests answered from memory fill the way to a client that does not read; what it says then is not kept."""
    with InThread(DiskStore(made.store), tmp_path, Patience()) as server:
        request = b"GET /pypi/simple/ HTTP/1.1\r\nHost: a\r\n\r\n"
        with server.connect() as one:
            for _ in range(3):
                one.sendall(request)
                one.recv(65536)
            one.settimeout(1.0)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += one.send(request * 1000)
            except TimeoutError:
                pass
            assert sent < 64 << 20
            kept = max(len(connection._buffer) for connection in server.server.connections)
            assert kept < 1 << 20
            # Whoever begins to read again is listened to again.
            one.settimeout(20)
            found, end = 0, time.monotonic() + 20
            while found < 20_000_000 and time.monotonic() < end:
                found += len(one.recv(1 << 20))
            assert found >= 20_000_000


def test_many_short_requests_in_a_row_cost_no_more_each(made: Tiny, tmp_path: Path) -> None:
    """Empty lines and requests in one piece are taken off its beginning, not copied with all that follows."""
    with InThread(DiskStore(made.store), tmp_path, Patience()) as server:
        with server.connect() as one:
            one.sendall(b"\r\n\r\n" * 200_000 + LAST)
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        with server.connect() as one:
            one.sendall((b"\r\n" + PAGE) * 2000 + LAST)
            assert _all(one) > 2000 * 100


def _all(one: socket.socket) -> int:
    """How many bytes come before the end, be it a good one or not."""
    count = 0
    try:
        while chunk := one.recv(1 << 20):
            count += len(chunk)
    except ConnectionResetError:
        pass
    return count


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_thousands_of_slow_clients_hurt_nobody(made: Tiny, tmp_path: Path) -> None:
    """While 10,000 clients hold half a head each, or as many as may be open, another is served at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = min(10_000, hard - 1000)
    with Live(made.store, tmp_path) as live:
        host, port = live.url.removeprefix("http://").strip("/").split(":")
        clients: list[socket.socket] = []
        try:
            begun = time.monotonic()
            for number in range(many):
                # Addresses of loopback have ports enough, each for itself.
                one = socket.create_connection(
                    (host, int(port)), timeout=10, source_address=(f"127.0.0.{2 + number // 2000}", 0)
                )
                one.sendall(b"GET / HTTP/1.1\r\nHo")
                clients.append(one)
            slowest = 0.0
            for _ in range(50):
                asked = time.monotonic()
                assert live.get("pypi/simple/alpha/").status == 200
                slowest = max(slowest, time.monotonic() - asked)
            assert slowest < 10
            assert time.monotonic() - begun < 120
        finally:
            for one in clients:
                one.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


FILES = 320
"""Descriptors of a server, of which 64 are for clients."""


def _gone(one: socket.socket) -> bool:
    """Whether the server has closed a connection, which was read to its end so far."""
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def _connected(
    ends: contextlib.ExitStack, live: Live, many: int, said: bytes, *, answered: bool = False
) -> list[socket.socket]:
    """So many clients that said something, one after the other."""
    host, port = live.url.partition("://")[2].strip("/").split(":")
    clients = []
    for _ in range(many):
        one = ends.enter_context(socket.create_connection((host, int(port)), timeout=10))
        one.sendall(said)
        if answered:
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        clients.append(one)
    return clients


def _lost(live: Live) -> dict[str, int]:
    """What the numbers say of the clients for whom there was no room."""
    told = live.get("metrics").body.decode()
    return {k: int(n) for k, n in re.findall(r'connections_lost_total\{state="(\w+)"\} (\d+)', told)}


def test_idle_clients_give_way(made: Tiny, tmp_path: Path) -> None:
    """At the limit nobody goes; above it those who are idle the longest, and whoever asks is always answered."""
    with Live(made.store, tmp_path, files=FILES) as live, contextlib.ExitStack() as ends:
        # An answer takes four.
        clients = _connected(ends, live, 60, PAGE, answered=True)
        assert _lost(live) == {"idle": 0, "head": 0, "refused": 0}
        assert not any(map(_gone, clients))
        clients[0].setblocking(True)
        clients[0].sendall(PAGE)
        assert clients[0].recv(4096).startswith(b"HTTP/1.1 200")
        more = _connected(ends, live, 300, PAGE, answered=True)
        assert live.get("pypi/simple/alpha/").status == 200
        lost = _lost(live)
        assert lost["idle"] >= 300
        assert lost["head"] == lost["refused"] == 0
        assert all(map(_gone, clients))
        here = [not _gone(one) for one in more]
        assert sum(here) >= 50
        assert here == sorted(here)
        # Who asked last stays longest, however long it has been here.
        first = more[here.index(True)]
        first.setblocking(True)
        first.sendall(PAGE)
        assert first.recv(4096).startswith(b"HTTP/1.1 200")
        _connected(ends, live, 10, PAGE, answered=True)
        assert not _gone(first)
        assert _gone(more[here.index(True) + 1])
        assert live.errors.read_text().count("64 descriptors") == 1


def test_heads_that_do_not_end_give_way(made: Tiny, tmp_path: Path) -> None:
    """Where nobody is idle, those who were waited for the longest go, with half a head or without a word."""
    with Live(made.store, tmp_path, files=FILES) as live, contextlib.ExitStack() as ends:
        kept = _connected(ends, live, 1, PAGE, answered=True)[0]
        clients = _connected(ends, live, 150, b"GET / HTTP/1.1\r\nHo")
        silent = _connected(ends, live, 150, b"")
        begun = time.monotonic()
        assert live.get("pypi/simple/alpha/").status == 200
        assert time.monotonic() - begun < 5
        assert _gone(kept)
        assert all(map(_gone, clients))
        here = [not _gone(one) for one in silent]
        assert sum(here) >= 50
        assert here == sorted(here)
        lost = _lost(live)
        assert lost["head"] >= 240
        assert lost["refused"] == 0


def test_nobody_who_is_being_answered_gives_way(tmp_path: Path) -> None:
    """A download goes on whoever comes; where there are nothing but downloads, the next client is refused."""
    made = tiny_bundle(tmp_path / "site", names=("alpha",), padding=24_000_000)
    wheel = next(made.wheels.iterdir())
    digits = digest_of(wheel.read_bytes()).removeprefix("sha256:")
    path = f"/pypi/files/{digits[:2]}/{digits}/{wheel.name}"
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    with Live(made.store, tmp_path / "live", files=FILES) as live, contextlib.ExitStack() as ends:
        downloads = _connected(ends, live, 15, request, answered=True)
        _connected(ends, live, 200, PAGE, answered=True)
        assert _lost(live)["refused"] == 0
        last = _connected(ends, live, 1, request, answered=True)[0]
        with pytest.raises(ConnectionResetError):
            _connected(ends, live, 1, PAGE, answered=True)
        for one in (*downloads, last):
            one.settimeout(20)
            assert _all(one) > wheel.stat().st_size - 4096
        assert _lost(live)["refused"] >= 1


def test_clients_that_do_not_agree_on_tls_take_room_like_others(made: Tiny, tmp_path: Path) -> None:
    """Those who are silent, or stop within TLS's own beginning, go first to last, and so do idle ones; all at once."""
    assert haversack("ca", "create", tmp_path / "ca", store=made.store).returncode == 0
    context = ssl.create_default_context(cafile=str(tmp_path / "ca" / CA))

    with (
        Live(made.store, tmp_path / "live", "--tls-ca", tmp_path / "ca", files=FILES) as live,
        contextlib.ExitStack() as ends,
    ):
        place = urlsplit(live.url)

        def client(said: bytes = PAGE) -> socket.socket:
            plain = socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10)
            one = ends.enter_context(context.wrap_socket(plain, server_hostname=place.hostname))
            one.sendall(said)
            found = b""
            while chunk := one.recv(65536):
                found += chunk
                if said == PAGE:
                    break
            assert found.startswith(b"HTTP/1.1 200")
            told.append(found.decode())
            return one

        told: list[str] = []
        begun = time.monotonic()
        silent = _connected(ends, live, 200, b"")
        client(LAST)
        half = _connected(ends, live, 200, b"\x16\x03\x01\x02\x00\x01\x00")
        idle = [client() for _ in range(70)]
        client(LAST.replace(b"/healthz", b"/metrics"))
        assert time.monotonic() - begun < 9
        assert all(map(_gone, silent + half[:-60]))
        assert idle[0].recv(1) == b""
        state = dict(re.findall(r'connections_lost_total\{state="(\w+)"\} (\d+)', told[-1]))
        assert int(state["head"]) >= 300
        assert int(state["idle"]) >= 10
        assert state["refused"] == "0"
        assert "accept" not in live.errors.read_text()
