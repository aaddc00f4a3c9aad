"""What HttpFetch does with servers that are well and servers that are not, over real sockets."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import os
import random
import re
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import FetchError, HaversackError, IntegrityError, SpaceError, StoreError
from haversack.model.artifact import digest_of
from haversack.model.site import Credentials
from haversack.ports import Fetch
from haversack.ports.fetch import HttpFetch, redact
from haversack.ports.s3fetch import S3Fetch
from tests.support.index import Index

NAME = "demo-1.0-py3-none-any.whl"
BODY = random.Random(1).randbytes(300_000)
DIGEST = digest_of(BODY)
MIB = 1 << 20
SECRET = "s3cr€t/p@ss:w#rd"


def quick(credentials: Callable[[str], Credentials | None] = lambda url: None, **options: Any) -> HttpFetch:
    """A fetch whose pauses are short."""
    return HttpFetch(credentials, **{"backoff": 0.01, "timeout": 5.0, **options})


@pytest.fixture(autouse=True)
def own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no root certificate but those a test names."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # Reading the roots of the whole web, which no test here meets, would be most of the run.
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, os.devnull)


@pytest.fixture
def index() -> Iterator[Index]:
    """An index with one file."""
    with Index({NAME: BODY}) as running:
        yield running


class Counter:
    """Adds up what a progress bar is told."""

    def __init__(self) -> None:
        self.total = self.peak = 0
        self.calls: list[int] = []

    def __call__(self, count: int) -> None:
        """Take ``count`` more bytes."""
        self.total += count
        self.peak = max(self.peak, self.total)
        self.calls.append(count)


def get(fetch: Fetch, index: Index, dest: Path, on_bytes: Callable[[int], None] = lambda count: None) -> int:
    """Fetch the one file."""
    return fetch.get(index.file_url(NAME), DIGEST, dest, on_bytes)


def everything_said(error: BaseException) -> str:
    """All that a person or a log could see of an error."""
    said = [str(error), repr(error), *traceback.format_exception(error)]
    if isinstance(error, HaversackError):
        said += [error.message, error.where, error.remedy]
    return "\n".join(said)


def test_a_file_arrives_whole(index: Index, tmp_path: Path) -> None:
    """One request brings the bytes, uncompressed on the way, and the bar counts each byte once."""
    seen = Counter()
    assert get(quick(), index, tmp_path / "f", seen) == len(BODY)
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.total == len(BODY)
    assert [request.headers["accept-encoding"] for request in index.requests] == ["identity"]


def test_a_partial_file_is_continued(index: Index, tmp_path: Path) -> None:
    """Only what is missing is asked for, and the bar starts where the last run ended."""
    (tmp_path / "f").write_bytes(BODY[:100_000])
    seen = Counter()
    get(quick(), index, tmp_path / "f", seen)
    assert [request.range for request in index.requests] == ["bytes=100000-"]
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.calls[0] == 100_000
    assert seen.total == len(BODY)


def test_a_file_that_is_there_is_not_fetched(index: Index, tmp_path: Path) -> None:
    """Bytes that already have the digest cost no request."""
    (tmp_path / "f").write_bytes(BODY)
    assert get(quick(), index, tmp_path / "f") == len(BODY)
    assert index.requests == []


def test_two_cut_connections_are_continued(index: Index, tmp_path: Path) -> None:
    """A connection that dies in the middle of the body costs only what had not arrived."""
    index.fault(truncate_at=110_000, times=2)
    seen = Counter()
    get(quick(), index, tmp_path / "f", seen)
    assert [request.range for request in index.requests] == [None, "bytes=110000-", "bytes=220000-"]
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.total == len(BODY)


def test_what_arrived_is_kept_for_the_next_run(index: Index, tmp_path: Path) -> None:
    """A run that gives up leaves a partial file that the next one continues."""
    index.fault(truncate_at=60_000, times=1)
    with pytest.raises(FetchError):
        get(quick(attempts=1), index, tmp_path / "f")
    index.fault(status=500, times=1)
    with pytest.raises(FetchError):
        get(quick(attempts=1), index, tmp_path / "f")
    get(quick(attempts=1), index, tmp_path / "f")
    assert index.requests[-1].range == "bytes=60000-"
    assert (tmp_path / "f").read_bytes() == BODY


def test_attempts_count_tries_without_progress(tmp_path: Path) -> None:
    """A long file over a bad line arrives, though it takes more tries than a stuck one would get."""
    body = random.Random(2).randbytes(6 * MIB)
    with Index({NAME: body}) as index:
        index.fault(truncate_at=MIB + 1)
        quick(attempts=2).get(index.file_url(NAME), digest_of(body), tmp_path / "f", lambda count: None)
        assert len(index.requests) == 6
    assert (tmp_path / "f").read_bytes() == body


def test_progress_that_is_lost_again_is_none(tmp_path: Path) -> None:
    """A host that always cuts at the same place and cannot go on is given up."""
    body = random.Random(3).randbytes(3 * MIB)
    with Index({NAME: body}) as index:
        index.fault(truncate_at=2 * MIB, no_range=True)
        with pytest.raises(FetchError, match="broke off"):
            quick(attempts=3).get(index.file_url(NAME), digest_of(body), tmp_path / "f", lambda count: None)
        assert len(index.requests) <= 4


@pytest.mark.parametrize("fault", [{"no_range": True}, {"range_from": 5}, {"status": 416, "times": 1}])
def test_a_host_that_cannot_continue_starts_over(index: Index, tmp_path: Path, fault: dict[str, Any]) -> None:
    """A Range request answered with the whole file, another place or 416 ends with the right bytes."""
    (tmp_path / "f").write_bytes(BODY[:1000])
    index.fault(**fault)
    seen = Counter()
    get(quick(), index, tmp_path / "f", seen)
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.total == seen.peak == len(BODY)


def test_a_partial_longer_than_the_file_starts_over(index: Index, tmp_path: Path) -> None:
    """What lies beyond the end of the host's file cannot be its beginning."""
    (tmp_path / "f").write_bytes(BODY + b"more")
    get(quick(), index, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    assert [request.range for request in index.requests] == [f"bytes={len(BODY) + 4}-", None]


def test_a_stale_partial_is_thrown_away(index: Index, tmp_path: Path) -> None:
    """A mixture of an old beginning and a new end is fetched once more from the first byte."""
    (tmp_path / "f").write_bytes(b"old" * 1000)
    seen = Counter()
    get(quick(), index, tmp_path / "f", seen)
    assert [request.range for request in index.requests] == ["bytes=3000-", None]
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.total == len(BODY)


def test_a_stale_partial_gets_one_second_chance(index: Index, tmp_path: Path) -> None:
    """Wrong bytes stay wrong after the second, whole fetch: an integrity error, and nothing is left."""
    (tmp_path / "f").write_bytes(b"old" * 1000)
    index.fault(flip_at=0)
    with pytest.raises(IntegrityError, match=r"300000 bytes arrived"):
        get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 2
    assert not (tmp_path / "f").exists()


def test_other_bytes_are_refused(index: Index, tmp_path: Path) -> None:
    """One flipped byte in a whole body is an integrity error at once, and the file is gone."""
    index.fault(flip_at=123_456)
    with pytest.raises(IntegrityError) as caught:
        get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 1
    assert not (tmp_path / "f").exists()
    assert DIGEST in caught.value.message
    assert caught.value.where == index.file_url(NAME)


@pytest.mark.parametrize("json_pages", [False, True])
def test_a_page_that_lies_about_the_hash_is_caught(index: Index, tmp_path: Path, json_pages: bool) -> None:
    """The digest an index page gives is held against the bytes."""
    index.json_pages = json_pages
    index.lie_about.add(NAME)
    request = urllib.request.Request(
        index.url + "demo/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(request) as page:
        said = re.search(r"sha256[=\": ]+([0-9a-f]{64})", page.read().decode())
    assert said
    with pytest.raises(IntegrityError):
        quick().get(index.file_url(NAME), f"sha256:{said[1]}", tmp_path / "f", lambda count: None)
    assert not (tmp_path / "f").exists()


def test_a_passing_error_is_waited_out(index: Index, tmp_path: Path) -> None:
    """Three answers of 503 delay a file and do not lose it."""
    fault = index.fault(status=503, times=3)
    get(quick(), index, tmp_path / "f")
    assert fault.hits == 3
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_lasting_error_ends(index: Index, tmp_path: Path) -> None:
    """After the last attempt the error names the status, the tries and what to do."""
    index.fault(status=502)
    with pytest.raises(FetchError) as caught:
        get(quick(attempts=3), index, tmp_path / "f")
    assert len(index.requests) == 3
    assert str(caught.value) == f"{index.file_url(NAME)}: its host answered 502 Bad Gateway (3 attempts)"
    assert "run this again" in caught.value.remedy


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(index: Index, tmp_path: Path, form: str) -> None:
    """A host that says when to come back is left alone until then."""
    # A date has no fractions: two seconds from now are at least one.
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    index.fault(status=429, headers={"Retry-After": "1" if form == "seconds" else later}, times=1)
    start = time.monotonic()
    get(quick(), index, tmp_path / "f")
    assert time.monotonic() - start >= 0.9


@pytest.mark.parametrize("value", ["86400", "soon"])
def test_retry_after_is_bounded(index: Index, tmp_path: Path, value: str) -> None:
    """No host can make a run sleep for a day, and one that talks nonsense is asked again anyway."""
    index.fault(status=429, headers={"Retry-After": value}, times=1)
    start = time.monotonic()
    get(quick(longest_wait=0.1), index, tmp_path / "f")
    assert time.monotonic() - start < 3


def test_long_patience_is_told(index: Index, tmp_path: Path) -> None:
    """A host that wants to be waited for is named, once for all that wait; a short pause is nobody's concern."""
    index.fault(status=429, headers={"Retry-After": "86400"}, times=3)
    said: list[str] = []
    fetch = quick(longest_wait=2, say=said.append)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: get(fetch, index, tmp_path / str(n)), range(3)))
    assert said == [f"waiting 2 s: {index.origin.removeprefix('http://')} asks for patience"]
    index.fault(status=429, headers={"Retry-After": "1"}, times=1)
    get(fetch, index, tmp_path / "f")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "`auth`"), (403, "`auth`"), (404, "lock again"), (410, "lock again"), (400, "")],
)
def test_a_final_answer_is_not_asked_for_again(
    index: Index, tmp_path: Path, status: int, remedy: str
) -> None:
    """What will not change is said at once, with the remedy that fits."""
    index.fault(status=status)
    with pytest.raises(FetchError, match=str(status)) as caught:
        get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 1
    assert remedy in caught.value.remedy


def test_a_stalled_host_ends_by_the_timeout(index: Index, tmp_path: Path) -> None:
    """A body that stops without an end costs one timeout a try, and what came before is kept."""
    index.fault(stall_at=50_000)
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"sent nothing for 0\.3 s"):
        get(quick(timeout=0.3, attempts=2), index, tmp_path / "f")
    assert time.monotonic() - start < 3
    assert (tmp_path / "f").read_bytes() == BODY[:100_000]


def test_a_host_that_never_answers_ends_by_the_timeout(index: Index, tmp_path: Path) -> None:
    """A request that is taken and not answered costs one timeout a try."""
    index.fault(mute=True)
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"sent nothing for 0\.3 s"):
        get(quick(timeout=0.3, attempts=2), index, tmp_path / "f")
    assert time.monotonic() - start < 3


def test_a_trickling_host_ends_by_the_timeout(index: Index, tmp_path: Path) -> None:
    """A host that keeps the read timeout away with a byte now and then is as good as stalled."""
    index.fault(delay=0.05, piece=10)
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"sent only \d+ bytes in 0\.3 s"):
        get(quick(timeout=0.3, attempts=2), index, tmp_path / "f")
    assert time.monotonic() - start < 3


def test_a_slow_host_is_not_a_stalled_one(index: Index, tmp_path: Path) -> None:
    """A transfer that takes longer than the timeout and keeps moving arrives in one request."""
    index.fault(delay=0.05, piece=30_000)
    get(quick(timeout=0.4), index, tmp_path / "f")
    assert len(index.requests) == 1


def test_a_dropped_request_is_made_again(index: Index, tmp_path: Path) -> None:
    """A connection closed without an answer is a hitch."""
    fault = index.fault(hang_up=True, times=2)
    get(quick(), index, tmp_path / "f")
    assert fault.hits == 2


def test_a_host_that_is_down_is_named(index: Index, tmp_path: Path) -> None:
    """Refused connections end in an error after the last attempt."""
    index.down()
    with pytest.raises(FetchError, match=r"cannot be connected to \(2 attempts\)"):
        get(quick(attempts=2), index, tmp_path / "f")


def test_a_host_that_takes_no_connection_ends_by_the_timeout() -> None:
    """A connection that is neither taken nor refused costs one timeout a try."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        # The kernel drops what comes when the queue of a server that accepts nothing is full.
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        with pytest.raises(FetchError, match=r"did not answer within 0\.3 s"):
            quick(timeout=0.3, attempts=1).size(f"http://127.0.0.1:{server.getsockname()[1]}/x")


def test_a_host_without_an_address_is_named() -> None:
    """A name that cannot be looked up is told from a host that is down."""
    # Longer than DNS allows, so that the answer comes from this machine.
    name = ".".join(["a" * 60] * 5)
    with pytest.raises(FetchError, match="name cannot be resolved"):
        quick(attempts=1).size(f"http://{name}/x")


def test_a_host_that_comes_back_is_reached(index: Index, tmp_path: Path) -> None:
    """A short outage, with open connections cut, does not end a run."""
    fetch = quick(backoff=0.2)
    get(fetch, index, tmp_path / "first")
    index.down()
    back = threading.Timer(0.1, index.up)
    back.start()
    get(fetch, index, tmp_path / "second")
    back.join()
    assert (tmp_path / "second").read_bytes() == BODY


@pytest.mark.parametrize("unsized", [{"chunked": True}, {"no_size": True}])
def test_bodies_of_unknown_length_arrive(index: Index, tmp_path: Path, unsized: dict[str, Any]) -> None:
    """Neither chunks nor a body that ends with its connection need a Content-Length."""
    index.fault(**unsized)
    get(quick(), index, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("unsized", [{"chunked": True}, {"no_size": True}])
def test_cut_bodies_of_unknown_length_are_completed(
    index: Index, tmp_path: Path, unsized: dict[str, Any]
) -> None:
    """A body cut short is not taken for wrong bytes, even where its end cannot be told from a cut."""
    index.fault(truncate_at=10_240, times=1, **unsized)
    get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 2
    assert (tmp_path / "f").read_bytes() == BODY


def test_bytes_are_taken_as_they_come(tmp_path: Path) -> None:
    """An archive that its host labels as encoded is not unpacked on the way."""
    body = gzip.compress(BODY)
    with Index({NAME: body}) as index:
        index.fault(headers={"Content-Encoding": "gzip"})
        quick().get(index.file_url(NAME), digest_of(body), tmp_path / "f", lambda count: None)
        assert quick().size(index.file_url(NAME)) == len(body)
    assert (tmp_path / "f").read_bytes() == body


def test_one_connection_serves_many_files(index: Index, tmp_path: Path) -> None:
    """Files, sizes, redirects and short refusals one after the other share a connection."""
    index.fault("moved", redirect=index.file_url(NAME), times=1)
    fetch = quick()
    fetch.get(f"{index.origin}/moved", DIGEST, tmp_path / "moved", lambda count: None)
    for number in range(5):
        get(fetch, index, tmp_path / str(number))
        fetch.size(index.file_url(NAME))
        with pytest.raises(FetchError):
            fetch.get(f"{index.origin}/none", DIGEST, tmp_path / "none", lambda count: None)
    assert len({request.port for request in index.requests}) == 1


def test_threads_share_a_fetch(tmp_path: Path) -> None:
    """Sixteen threads fetch two hundred files, half of them cut once, and each gets its own bytes."""
    files = {f"p{n}-1.0-py3-none-any.whl": random.Random(n).randbytes(20_000) for n in range(200)}
    with Index(files) as index:
        for number in range(0, 200, 2):
            index.fault(f"/p{number}-", truncate_at=7_000, times=1)
        fetch = quick()

        def one(name: str) -> bool:
            fetch.get(index.file_url(name), digest_of(files[name]), tmp_path / name, lambda count: None)
            return (tmp_path / name).read_bytes() == files[name]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(one, files))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of many megabytes passes through a few."""
    body = bytes(24 * MIB)
    with Index({NAME: body}) as index:
        (tmp_path / "f").write_bytes(body[: 8 * MIB])
        fetch, digest = quick(), digest_of(body)
        tracemalloc.start()
        index.fault(no_range=True)
        fetch.get(index.file_url(NAME), digest, tmp_path / "f", lambda count: None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 6 * MIB


def test_credentials_go_to_their_origin(index: Index, tmp_path: Path) -> None:
    """An index that asks for a user and a password gets them, whatever letters are in them."""
    index.auth = ("ann", SECRET)
    with pytest.raises(FetchError, match="401"):
        get(quick(), index, tmp_path / "f")
    asked: list[str] = []

    def resolver(url: str) -> Credentials:
        asked.append(url)
        return Credentials("ann", SECRET)

    get(quick(resolver), index, tmp_path / "f")
    assert asked == [index.file_url(NAME)]
    assert (tmp_path / "f").read_bytes() == BODY


def test_credentials_follow_a_redirect_within_the_origin(index: Index, tmp_path: Path) -> None:
    """The same host, asked by another path, still knows who asks."""
    index.auth = ("ann", SECRET)
    index.fault("moved", redirect=index.file_url(NAME))
    fetch = quick(lambda url: Credentials("ann", SECRET))
    fetch.get(f"{index.origin}/moved", DIGEST, tmp_path / "f", lambda count: None)
    assert [request.authorization is not None for request in index.requests] == [True, True]


def test_credentials_do_not_follow_a_redirect_elsewhere(index: Index, tmp_path: Path) -> None:
    """Another port is another origin: it gets the request and no credentials, also for a size."""
    with Index({}) as front:
        front.fault(redirect=index.origin + "{path}")
        fetch = quick(lambda url: Credentials("ann", SECRET))
        get(fetch, front, tmp_path / "f")
        assert fetch.size(front.file_url(NAME)) == len(BODY)
        assert all(request.authorization for request in front.requests)
    assert [request.authorization for request in index.requests] == [None, None]


@pytest.mark.parametrize(
    "location", ["file:///etc/hostname", "ftp://127.0.0.1/x", "http://[broken/x", "http://a\\@b/"]
)
def test_redirects_stay_on_the_web(index: Index, tmp_path: Path, location: str) -> None:
    """No host can send us to a file of this machine, or to what is no URL."""
    index.fault(redirect=location)
    with pytest.raises(FetchError):
        get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 1


def test_redirects_in_a_circle_end(index: Index, tmp_path: Path) -> None:
    """A host that sends us round and round is left."""
    index.fault(redirect=index.origin + "{path}")
    with pytest.raises(FetchError, match="redirected more than 10 times"):
        get(quick(), index, tmp_path / "f")
    assert len(index.requests) == 11


def test_an_error_names_where_a_redirect_led(index: Index, tmp_path: Path) -> None:
    """The place that failed is named beside the place that was asked, without its signed query."""
    with Index({}) as front:
        front.fault(redirect=index.origin + "/gone?signature=abcdef")
        with pytest.raises(FetchError) as caught:
            get(quick(), front, tmp_path / "f")
    assert f"404 Not Found (redirected to {index.origin}/gone)" in caught.value.message
    assert "abcdef" not in everything_said(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401},
        {"status": 404},
        {"status": 500},
        {"truncate_at": 10},
        {"stall_at": 10},
        {"mute": True},
        {"hang_up": True},
        {"flip_at": 10},
        {"redirect": "http://ann:hunter2@127.0.0.1:1/x?token=hunter2"},
        {"redirect": "file://ann:hunter2@host/x?token=hunter2"},
        {"redirect": "http://ann:hunter2@[::1/x"},
        {"redirect": "{path}?token=hunter2"},
    ],
)
def test_no_error_tells_a_secret(index: Index, tmp_path: Path, fault: dict[str, Any]) -> None:
    """Neither the password nor a token in a URL is in any text of an error or of what caused it."""
    index.fault(**fault)
    url = index.file_url(NAME).replace("http://", "http://ann:hunter2@") + "?token=hunter2#hunter2"
    fetch = quick(lambda url: Credentials("ann", "hunter2"), attempts=2, timeout=0.2)
    with pytest.raises(HaversackError) as caught:
        fetch.get(url, DIGEST, tmp_path / "f", lambda count: None)
    assert "hunter2" not in everything_said(caught.value)
    assert caught.value.where == index.file_url(NAME)


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2@127.0.0.1:bad/x",
        "http://ann:hunter2@/x",
        "http://ann:hunter2@[::1/x",
        "ann:hunter2@h/x",
        f"http://ann:hunter2@{'a' * 70}.example/x?token=hunter2",
    ],
)
def test_a_broken_url_tells_no_secret(tmp_path: Path, url: str) -> None:
    """What cannot even be parsed is refused without being repeated."""
    with pytest.raises(FetchError, match="not an http, https or file URL") as got:
        quick().get(url, DIGEST, tmp_path / "f", lambda count: None)
    with pytest.raises(FetchError, match="not an http, https or file URL") as sized:
        quick().size(url)
    assert "hunter2" not in everything_said(got.value) + everything_said(sized.value)


def test_a_refused_connection_tells_no_secret(index: Index, tmp_path: Path) -> None:
    """A host that is down does not bring the URL's secrets out."""
    index.down()
    url = index.file_url(NAME).replace("http://", "http://ann:hunter2@") + "?token=hunter2"
    with pytest.raises(FetchError) as caught:
        quick(attempts=1).get(url, DIGEST, tmp_path / "f", lambda count: None)
    assert "hunter2" not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b.whl", "https://host/a/b.whl"),
        ("https://u:p@host:8443/a?x=1#y", "https://host:8443/a"),
        ("https://token@host/a", "https://host/a"),
        ("https://u:p@[::1]:80/a", "https://[::1]:80/a"),
        ("https://u:p@q@host/a", "https://host/a"),
        ("https://u:p@host/mirror/https://other/a", "https://host/mirror/https://other/a"),
        ("https://u:pa/ss@host/a", "https://…"),
        ("https://u:pa#ss@host/a", "https://…"),
        ("https://u:pa?ss@host/a", "https://…"),
        ("u:p@host/a", "host/a"),
        ("file:///srv/a.whl", "file:///srv/a.whl"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    """What is shown of a URL is where it leads, not who goes there."""
    assert redact(url) == shown


def test_sizes_are_asked_for_without_the_body(index: Index) -> None:
    """A HEAD request tells the size."""
    assert quick().size(index.file_url(NAME)) == len(BODY)
    assert [request.method for request in index.requests] == ["HEAD"]


@pytest.mark.parametrize(
    "fault", [{"no_size": True}, {"chunked": True}, {"status": 405}, {"status": 503}, {"status": 404}]
)
def test_a_size_that_is_not_told_is_none(index: Index, fault: dict[str, Any]) -> None:
    """A host that does not tell the size, or does not know HEAD, is no error."""
    index.fault(**fault)
    assert quick().size(index.file_url(NAME)) is None


def test_a_size_from_nowhere_is_an_error(index: Index) -> None:
    """A host that is down cannot be mistaken for one that does not tell."""
    index.down()
    with pytest.raises(FetchError, match="cannot be connected to"):
        quick(attempts=2).size(index.file_url(NAME))


def test_file_urls_are_copied(tmp_path: Path) -> None:
    """A file URL, with what it must escape, gives size and bytes; a partial file is no hindrance."""
    source = tmp_path / "a folder" / NAME
    source.parent.mkdir()
    source.write_bytes(BODY)
    (tmp_path / "f").write_bytes(b"stale")
    seen = Counter()
    assert quick().size(source.as_uri()) == len(BODY)
    assert quick().get(source.as_uri(), DIGEST, tmp_path / "f", seen) == len(BODY)
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen.total == len(BODY)


def test_file_urls_are_checked(tmp_path: Path) -> None:
    """A local file with other bytes is refused like a remote one, and is itself left alone."""
    (tmp_path / NAME).write_bytes(b"other")
    with pytest.raises(IntegrityError):
        quick().get((tmp_path / NAME).as_uri(), DIGEST, tmp_path / "f", lambda count: None)
    assert not (tmp_path / "f").exists()
    assert (tmp_path / NAME).read_bytes() == b"other"


@pytest.mark.parametrize(
    "url",
    ["file:///no/such/file", "file:///tmp", "file:///dev/zero", "file://host/etc/hostname", "file://[x/"],
)
def test_file_urls_mean_files_of_this_machine(tmp_path: Path, url: str) -> None:
    """A missing file, a folder, a device or another host is a fetch error."""
    with pytest.raises(FetchError, match="no such file"):
        quick().get(url, DIGEST, tmp_path / "f", lambda count: None)
    with pytest.raises(FetchError, match="no such file"):
        quick().size(url)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and does not read")
def test_a_file_that_cannot_be_read_is_a_fetch_error(tmp_path: Path) -> None:
    """A read error of the source is not taken for one of our own disk."""
    with pytest.raises(FetchError, match="cannot be read"):
        quick().get("file:///proc/self/mem", DIGEST, tmp_path / "f", lambda count: None)


def test_a_folder_that_is_not_there_is_a_store_error(index: Index, tmp_path: Path) -> None:
    """Trouble with our own disk is not blamed on the host, which is not even asked."""
    with pytest.raises(StoreError):
        get(quick(), index, tmp_path / "none" / "f")
    assert index.requests == []


def test_a_full_disk_is_a_space_error(index: Index, tmp_path: Path) -> None:
    """Running out of room is told as such, and what fitted is kept."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(SpaceError):
            get(quick(), index, tmp_path / "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    get(quick(), index, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("held", [0, 100_000])
def test_a_host_without_an_end_is_stopped(index: Index, tmp_path: Path, held: int) -> None:
    """No more than the size is taken, also after a part that was there, and nothing of it stays."""
    index.fault(endless=True)
    (tmp_path / "f").write_bytes(BODY[:held])
    seen = Counter()
    with pytest.raises(IntegrityError, match=f"sent more than the {len(BODY)} bytes") as caught:
        quick().get(index.file_url(NAME), DIGEST, tmp_path / "f", seen, size=len(BODY))
    assert index.file_url(NAME) in str(caught.value)
    assert not (tmp_path / "f").exists()
    assert (seen.peak <= len(BODY), seen.total) == (True, 0)


def test_a_host_that_offers_too_much_is_not_listened_to(index: Index, tmp_path: Path) -> None:
    """A Content-Length above the size is refused before a byte of the body."""
    seen = Counter()
    with pytest.raises(IntegrityError, match="300000 bytes, more than the 299999 bytes"):
        quick().get(index.file_url(NAME), DIGEST, tmp_path / "f", seen, size=len(BODY) - 1)
    assert seen.calls == []
    (tmp_path / "f").write_bytes(b"of another file" * 10_000)
    index.fault(endless=True, times=1)
    assert quick().get(index.file_url(NAME), DIGEST, tmp_path / "f", seen, size=len(BODY)) == len(BODY)


def test_a_part_that_nobody_asked_for_is_refused_once(index: Index, tmp_path: Path) -> None:
    """206 with too much, to a request for the whole, is not asked for again and again."""
    index.fault(endless=True, status=206, headers={"Content-Range": "bytes 0-9/10"})
    with pytest.raises(IntegrityError, match="sent more than the 10 bytes"):
        quick().get(index.file_url(NAME), DIGEST, tmp_path / "f", lambda _: None, size=10)
    assert len(index.requests) == 1


def test_a_file_that_no_disk_holds_is_refused(index: Index, tmp_path: Path) -> None:
    """Where nobody knows the size the host's own word counts: more than is free is not begun."""
    index.fault(no_size=True, headers={"Content-Length": str(1 << 60)})
    seen = Counter()
    with pytest.raises(SpaceError, match=f"{1 << 60} bytes are to be fetched and [0-9]+ are free"):
        quick().take(index.file_url(NAME), tmp_path / "f", seen)
    with pytest.raises(SpaceError, match=f"{1 << 60} bytes are to be fetched and [0-9]+ are free"):
        quick().get(index.file_url(NAME), DIGEST, tmp_path / "f", seen)
    assert seen.calls == []


def test_a_bucket_without_an_end_is_stopped(index: Index, tmp_path: Path) -> None:
    """What s3:// names is bounded by its size too, and told by that URL."""
    index.fault(endless=True)
    environ = {"AWS_ENDPOINT_URL": index.origin, "AWS_SKIP_SIGNATURE": "true", "HOME": str(tmp_path)}
    url, dest = f"s3://files/{NAME}", tmp_path / "f"
    for held in (b"", b"x"):
        dest.write_bytes(held)
        seen = Counter()
        with pytest.raises(IntegrityError, match=f"^{url}: .* more than the {len(BODY)} bytes"):
            S3Fetch(quick(), environ).get(url, DIGEST, dest, seen, size=len(BODY))
        assert (seen.peak <= len(BODY), seen.total, dest.exists()) == (True, 0, False)


def test_the_proxy_of_the_environment_is_used(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With http_proxy the request goes there, with the proxy's own credentials, for a host nobody knows."""
    monkeypatch.setenv("http_proxy", index.origin.replace("http://", "http://bob:p%40ss@"))
    quick().get(f"http://files.invalid/files/{NAME}", DIGEST, tmp_path / "f", lambda count: None)
    assert [request.target for request in index.requests] == [f"http://files.invalid/files/{NAME}"]
    assert index.requests[0].headers["proxy-authorization"] == "Basic Ym9iOnBAc3M="


def test_no_proxy_is_honoured(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in no_proxy is reached directly, the proxy being down."""
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    get(quick(), index, tmp_path / "f")
    assert index.requests[0].target == f"/files/{NAME}"


def test_a_proxy_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is blamed, not the host behind it, and its password stays out of the text."""
    monkeypatch.setenv("http_proxy", "bob:hunter2@127.0.0.1:1")
    with pytest.raises(FetchError, match="proxy cannot be reached") as caught:
        quick(attempts=2).size("http://files.invalid/x")
    assert "hunter2" not in everything_said(caught.value)


def test_a_proxy_that_opens_no_tunnel_is_named(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that refuses https is blamed in its own words."""
    monkeypatch.setenv("https_proxy", index.origin)
    with pytest.raises(FetchError, match=r"proxy does not let it through: .*501"):
        quick(attempts=2).size("https://files.invalid/x")


def test_a_proxy_that_asks_who_we_are_is_explained(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """407 has a remedy of its own."""
    monkeypatch.setenv("http_proxy", index.origin)
    index.fault(status=407)
    with pytest.raises(FetchError, match="407") as caught:
        get(quick(), index, tmp_path / "f")
    assert "*_proxy" in caught.value.remedy


@pytest.mark.parametrize(
    "address", ["socks5://bob:hunter2@127.0.0.1:1", "http://bob:hunter2@[::1", "http://h:x"]
)
def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """A proxy that cannot be used is an error, not a reason to go without."""
    monkeypatch.setenv("https_proxy", address)
    with pytest.raises(FetchError, match="https proxy") as caught:
        quick()
    assert "hunter2" not in everything_said(caught.value)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A fresh self-signed certificate of 127.0.0.1, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl program to make a certificate with")
    key, path = tmp_path / "key.pem", tmp_path / "own.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    own = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path)]
    subprocess.run([openssl, *words.split(), *own], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def test_certificates_are_checked(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown certificate is refused without a second try; SSL_CERT_FILE makes it known."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Index({NAME: BODY}, tls=context) as index:
        start = time.monotonic()
        with pytest.raises(FetchError, match=r"certificate is not trusted: self.signed") as caught:
            get(quick(backoff=5), index, tmp_path / "f")
        assert time.monotonic() - start < 2
        assert "SSL_CERT_FILE" in caught.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        get(quick(), index, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
