"""What the programs beside SkyPilot share: a look at its API server, its client, and a bound for each.

These programs are run by SkyPilot's own Python (3.10 or newer), from the folder where all of them lie; they import
nothing of haversack.  What they do when the server does not answer is in docs/spec/skypilot-service.md.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

TEMPFAIL = 75
"""Exit code where the server could not be asked: EX_TEMPFAIL of sysexits.h, so that a timer tries again."""
FAILURES = ("down", "slow", "broken", "refused", "version", "failed")
"""Why a server could not be asked, in one word each; docs/spec/skypilot-service.md says what they mean."""
ENDPOINT = "SKYPILOT_API_SERVER_ENDPOINT"
_HEALTH_LIMIT = 1 << 20
_LONGEST = 300


class Unanswered(Exception):  # noqa: N818 - what happened, not a fault of ours
    """The API server could not be asked: ``failure`` is one of `FAILURES`, the message one sentence."""

    def __init__(self, failure: str, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


class Late(BaseException):
    """The time for a step is over; no ``except Exception`` of SkyPilot's keeps it."""


def now() -> float:
    """Seconds on a clock that no administrator and no NTP moves."""
    return time.monotonic()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `Late` in here after so many seconds, whatever is being waited for.

    SkyPilot's ``sdk.get`` waits without an end (sky/client/sdk.py).  In the main thread only, and not one within
    another.
    """

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, over)
    # And again while what it interrupts waits for threads of its own.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fetch(url: str, seconds: float, limit: int) -> tuple[int, bytes]:
    """The status and body of a GET, all of it within ``seconds``, through no proxy and following nothing.

    Raises ``TimeoutError`` when it takes longer, also where bytes drip; ``OSError`` when nothing answers, and
    ``http.client.HTTPException`` when the answer is no HTTP or longer than ``limit`` bytes.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=seconds)
    late = threading.Event()

    def end() -> None:
        late.set()
        if connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(limit + 1)
    except (OSError, http.client.HTTPException) as problem:
        # The socket's own time is over at the same moment: one failure, one sentence.
        if late.is_set() or isinstance(problem, TimeoutError):
            raise TimeoutError(f"no answer within {seconds:g} seconds") from None
        raise
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if len(body) > limit:
        raise http.client.HTTPException(f"more than {limit} bytes")
    return answer.status, body


def health(endpoint: str, seconds: float) -> dict[str, Any]:
    """What the API server says of itself at ``/api/health``.  Raises `Unanswered`."""
    name = shown(endpoint)
    if not possible(endpoint):
        raise Unanswered("down", f"{name[0].upper()}{name[1:]} is no address of an API server.")
    try:
        status, body = fetch(f"{endpoint.rstrip('/')}/api/health", seconds, _HEALTH_LIMIT)
    except TimeoutError:
        raise Unanswered(
            "slow", f"The API server at {name} did not answer within {seconds:g} seconds."
        ) from None
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise Unanswered("down", f"No API server answers at {name}: {reason}.") from None
    except http.client.HTTPException:
        raise Unanswered("broken", f"What answers at {name} is no API server of SkyPilot.") from None
    if status in {301, 302, 303, 307, 308, 401, 403}:
        raise Unanswered("refused", f"The API server at {name} wants a login (HTTP {status}).")
    if status != 200:
        raise Unanswered("broken", f"The API server at {name} answers with HTTP {status}.")
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("status"), str):
        raise Unanswered("broken", f"What answers at {name} is no API server of SkyPilot.")
    if told["status"] != "healthy":
        raise Unanswered("refused", f"The API server at {name} says that it is {plain(told['status'])}.")
    return told


def possible(endpoint: str) -> bool:
    """Whether an endpoint is a URL of HTTP with a host that has a name, and a port that there can be."""
    try:
        parts = urlsplit(endpoint)
        (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def shown(endpoint: str) -> str:
    """An endpoint without user, password, query and fragment; of one that is none, nothing is told but that."""
    if not possible(endpoint):
        return "the endpoint that was given"
    parts = urlsplit(endpoint)
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}"


def plain(text: object, longest: int = _LONGEST) -> str:
    """A text of somebody else's as one short line, without colours, control characters and users in URLs."""
    bare = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(text))
    bare = re.sub(r"(\w+://)[^/\s@]+@", r"\1", bare)
    bare = " ".join("".join(c if c.isprintable() else " " for c in bare).split())
    return bare if len(bare) <= longest else f"{bare[: longest - 1]}…"


@dataclass(frozen=True)
class Asked:
    """SkyPilot's client, and until when it may be waited for (on the clock of `now`)."""

    sdk: Any
    until: float
    version: str

    def get(self, request: Any, *arguments: Any, most: float | None = None, **named: Any) -> Any:
        """What a function of the SDK answers, waited for as long as there is time, and at most ``most`` seconds.

        Raises `Late`, and whatever SkyPilot raises.
        """
        left = self.until - now()
        with within(left if most is None else min(left, most)):
            return self.wait(request(*arguments, **named))

    def wait(self, request: Any) -> Any:
        """What a request gives; one that is `Late` is taken back, or it would be done later, or hold a worker."""
        try:
            return self.sdk.get(request)
        except Late:
            with suppress(Exception, Late):
                self.sdk.api_cancel([request])
            raise

    def gather(self, *requests: Callable[[], Any], most: float, end: float | None = None) -> list[Any]:
        """What requests give that are under way at once, in ``most`` seconds together; in place of an answer, what
        was raised: `Late`, or whatever SkyPilot raises.

        It ends at ``end`` (on the clock of `now`), or a second later for each that was not waited for until then.  Each
        that is late is taken back, for which a server that does not answer may take up to five seconds more.
        """
        over = min(now() + most, self.until, end or self.until)
        begun = [_caught(request, over) for request in requests]
        return [
            one if isinstance(one, BaseException) else _caught(partial(self.wait, one), over) for one in begun
        ]


def _caught(work: Callable[[], Any], over: float) -> Any:
    try:
        with within(max(over - now(), 1.0)):
            return work()
    except (Exception, Late) as problem:
        return problem


def ask(timeout: float) -> Asked:
    """SkyPilot's client for the server that the environment names, once that server has said that it is well.

    The client starts a server of its own where none answers (sky/server/common.py), which would live and die in the
    control group of a timer's unit.  0.14 has a variable against that; what starts it is taken out as well, for
    versions that do not read the variable.  Raises `Unanswered`.
    """
    until = now() + timeout
    endpoint = os.environ.get(ENDPOINT, "")
    if not endpoint:
        raise Unanswered("down", f"{ENDPOINT} names no API server.")
    told = health(endpoint, min(timeout, 20.0))
    os.environ["SKYPILOT_DISABLE_LOCAL_API_SERVER"] = "1"
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    host = urlsplit(endpoint).hostname or ""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))
    from sky.client import sdk
    from sky.server import common

    def refuse(*_arguments: object, **_named: object) -> None:
        raise ConnectionRefusedError("it answers no more")

    for name in ("check_local_api_server_enabled_or_raise", "_start_api_server"):
        setattr(common, name, refuse)
    # Or it says that no request is under way where it sees no process of a server, which may be another's.
    if hasattr(sdk, "_local_api_server_running"):
        sdk._local_api_server_running = lambda kill=False: not kill
    return Asked(sdk, until, plain(told.get("version", ""), 40))


def why(problem: BaseException, endpoint: str) -> Unanswered:
    """What SkyPilot's client raised, as one of the ways in which a server is not asked.

    By the names of its exceptions (sky/exceptions.py), which have been the same since 0.10.
    """
    if isinstance(problem, Unanswered):
        return problem
    name = shown(endpoint)
    kinds = {kind.__name__ for kind in type(problem).__mro__}
    if isinstance(problem, Late):
        return Unanswered("slow", f"The API server at {name} took longer than there was time for.")
    if "APIVersionMismatchError" in kinds:
        # Without its advice, which is to install another from the internet.
        said = re.split("Contact|Upgrade", plain(problem))[0].strip()
        return Unanswered("version", f"The API server at {name} is of another version: {said}")
    if kinds & {"ApiServerAuthenticationError", "PermissionDeniedError"}:
        return Unanswered("refused", f"The API server at {name} wants a login.")
    if kinds & {"Timeout", "TimeoutError"}:
        return Unanswered("slow", f"The API server at {name} did not answer in time.")
    if kinds & {"ApiServerConnectionError", "ConnectionError", "ServerTemporarilyUnavailableError"}:
        return Unanswered("down", f"The API server at {name} has gone: {plain(problem, 120)}.")
    return Unanswered("failed", f"The API server at {name} did not do it: {plain(problem)}")


@dataclass(frozen=True)
class Cluster:
    """What SkyPilot tells of a cluster (sky/schemas/api/responses.py, StatusResponse).

    ``autostop`` is in minutes, -1 where none is set; ``to_down`` tells that it tears down instead of stopping.
    ``handle`` is SkyPilot's own object, with the resources that were launched, or None; ``updated_at`` is when its
    status was set the last time, in seconds since 1970.
    """

    name: str
    status: str
    autostop: int = -1
    to_down: bool = False
    managed: bool = False
    user: str | None = None
    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    spot: bool | None = None
    launched_at: int | None = None
    last_use: str | None = None
    hash: str | None = None
    handle: Any = None
    updated_at: int | None = None


def told(record: Any, name: str) -> Any:
    """A value of one of SkyPilot's records: mappings in versions before 0.11, objects after.  None: not told."""
    return record.get(name) if hasattr(record, "get") else getattr(record, name, None)


def cluster_of(record: Any) -> Cluster:
    """A record of ``sdk.status``."""

    def get(name: str) -> Any:
        return told(record, name)

    status = get("status")
    handle = get("handle")
    resources = getattr(handle, "launched_resources", None)
    cloud = get("cloud") or getattr(resources, "cloud", None)
    autostop = get("autostop")
    return Cluster(
        name=str(get("name")),
        status=str(getattr(status, "value", status)),
        autostop=autostop if isinstance(autostop, int) else -1,
        to_down=bool(get("to_down")),
        managed=bool(get("is_managed")),
        user=_short(get("user_name")),
        cloud=_short(str(cloud).lower() if cloud else None),
        region=_short(get("region") or getattr(resources, "region", None)),
        instance_type=_short(getattr(resources, "instance_type", None)),
        spot=bool(resources.use_spot) if resources is not None else None,
        launched_at=get("launched_at"),
        last_use=_command(get("last_use")),
        hash=get("cluster_hash"),
        handle=handle,
        # The server writes 0 where it does not know (sky/server/requests/serializers/encoders.py).
        updated_at=get("status_updated_at") or None,
    )


def forced() -> Any:
    """The mode in which SkyPilot asks the cloud, however lately it did."""
    from sky.utils.common import StatusRefreshMode

    return StatusRefreshMode.FORCE


def renewed(before: Cluster, now: Cluster) -> bool:
    """Whether the status of a cluster was set anew since it was ``before``.

    SkyPilot sets it whenever a cloud has answered, also to what it was; where one has not, it may give what it knew
    before without a word.  Where it does not tell when that was, nothing is known to be new.  Its times are compared with
    each other and never with our clock, which may be behind the server's.
    """
    return now.updated_at is not None and now.updated_at != before.updated_at


def _short(text: object) -> str | None:
    return plain(text, 128) if text else None


def _command(line: object) -> str | None:
    """The command of a command line alone: what follows may hold ``--env TOKEN=…``."""
    words = plain(line or "", 1000).split()
    kept = words[:2] if words[:1] == ["sky"] else words[:1]
    return " ".join(kept)[:64] or None


def is_controller(name: str) -> bool:
    """Whether a cluster is one of SkyPilot's own (sky/utils/common.py, its prefixes; the same since 0.8)."""
    return name.startswith(("sky-jobs-controller-", "sky-serve-controller-"))
