"""Metrics of SkyPilot for Prometheus: ``monitor.py --host H --port P [--state FILE] --server URL …``

Gives at ``/metrics`` what the API server tells at its own metrics' port, and what it does not: the clusters of the
state file that ``clusters.py`` writes, how ``autostop.py`` fared, whether the server answers, and the space on disks.
It reads and never writes.  docs/spec/skypilot-service.md has the list of families.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haversack.data.skypilot import asking, exposition
else:
    import asking
    import exposition

PATIENCE = 3.0
"""Seconds that the server may take for its health, and again for its metrics: a scrape has 10 by default."""
LARGEST = 4 << 20
"""Bytes of the server's own metrics, and of a state file."""
CONNECTIONS = 32
WHOLE = 20.0
"""Seconds that one connection may last, however slowly bytes come."""
FRESH = 1.0
"""Seconds for which one answer is given to all who ask meanwhile."""
STATUSES = ("INIT", "UP", "STOPPED", "AUTOSTOPPING", "PENDING")
log = logging.getLogger("skypilot-monitor")
Family = exposition.Family


class Notices:
    """One line to the log when something begins to fail, and one when it is well again."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    def tell(self, what: str, failure: str | None) -> None:
        """``failure`` is a sentence, or None when it is well."""
        before = self._failing.get(what)
        if failure is None and before is not None:
            del self._failing[what]
            log.warning("%s: well again", what)
        elif failure is not None and failure != before:
            self._failing[what] = failure
            log.warning("%s: %s", what, failure)


def page(url: str) -> tuple[str, frozenset[str]]:
    """Another's metrics as text that ends a line, and the names in it.

    Raises ``OSError``, ``ValueError`` and ``http.client.HTTPException`` where it is not as it should be.
    """
    status, body = asking.fetch(url, PATIENCE, LARGEST)
    if status != 200:
        raise ValueError(f"HTTP {status}")
    text = f"{body.decode('utf-8').rstrip()}\n".lstrip("\n")
    return text, exposition.names(text)


def gauge(name: str, about: str, value: float | None) -> exposition.Family:
    """A family of one value without labels; of none where it is not known."""
    return Family(name, about, () if value is None else (({}, value),))


def _number(told: object) -> float | None:
    return float(told) if isinstance(told, (int, float)) and not isinstance(told, bool) else None


def of_clusters(state: dict[str, Any]) -> list[exposition.Family]:
    """What the state file tells, as families; parts of it that are not as they should be are left out."""
    clusters = [
        c for c in state.get("clusters", ()) if isinstance(c, dict) and isinstance(c.get("name"), str)
    ]
    counted = dict.fromkeys(STATUSES, 0)
    for cluster in clusters:
        status = str(cluster.get("status"))[:32]
        counted[status] = counted.get(status, 0) + 1

    def each(key: str, scale: float = 1.0) -> tuple[tuple[dict[str, str], float], ...]:
        known = ((c["name"], _number(c.get(key))) for c in clusters)
        return tuple(({"cluster": n}, v * scale if v >= 0 else v) for n, v in known if v is not None)

    infos = tuple(
        ({"cluster": c["name"], **{k: str(c.get(k) or "") for k in ("user", "cloud", "region", "instance_type")}}
         | {"spot": str(c.get("spot")).lower() if isinstance(c.get("spot"), bool) else ""}, 1.0)
        for c in clusters
    )  # fmt: skip
    stops = each("autostop_minutes", 60.0)
    return [
        Family("skypilot_clusters", "Clusters of all users by state.",
               tuple(({"status": s}, float(n)) for s, n in counted.items())),
        Family("skypilot_cluster_info", "A cluster and what it runs on.", infos),
        Family("skypilot_cluster_up", "Whether a cluster is up.",
               tuple(({"cluster": c["name"]}, float(c.get("status") == "UP")) for c in clusters)),
        Family("skypilot_cluster_refreshed", "Whether a cluster was refreshed when clusters were last looked at.",
               tuple(({"cluster": c["name"]}, float(c["refreshed"])) for c in clusters
                     if isinstance(c.get("refreshed"), bool))),
        Family("skypilot_cluster_refresh_timestamp_seconds", "When the status of a cluster was last set.",
               each("refreshed_at")),
        Family("skypilot_cluster_idle_seconds",
               "Time since the last job of a cluster ended, or since its launch; 0 while one runs or waits.",
               each("idle_minutes", 60.0)),
        Family("skypilot_cluster_autostop_seconds",
               "Time of idleness after which a cluster stops or is torn down; -1 without autostop.", stops),
        Family("skypilot_cluster_autostop_set", "Whether a cluster has autostop.",
               tuple((labels, float(value >= 0)) for labels, value in stops)),
        Family("skypilot_cluster_launch_timestamp_seconds", "When a cluster was launched.", each("launched_at")),
        Family("skypilot_cluster_cost_dollars", "What a cluster has cost so far, by SkyPilot's catalog.",
               each("cost_dollars")),
        gauge("skypilot_clusters_left_out", "Clusters that the state file has no room for.",
              _number(state.get("left_out"))),
        gauge("skypilot_last_refresh_timestamp_seconds", "When the state of clusters was last refreshed.",
              _number(state.get("refreshed_at"))),
        gauge("skypilot_last_failure_timestamp_seconds", "When refreshing failed; absent after one that did not.",
              _number(state.get("failed_at"))),
        Family("skypilot_refresh_failed", "Whether the last refresh failed, by what it failed of.", _failures(state)),
    ]  # fmt: skip


def _failures(state: dict[str, Any]) -> tuple[tuple[dict[str, str], float], ...]:
    return tuple(({"failure": word}, float(state.get("failure") == word)) for word in asking.FAILURES)


def of_autostop(state: dict[str, Any]) -> list[exposition.Family]:
    """What the state file of ``autostop.py`` tells, as families."""
    told = (
        (str(name)[:128], one) for name, one in state.get("clusters", {}).items() if isinstance(one, dict)
    )
    clusters = tuple(({"cluster": name}, float(one.get("failed") is True)) for name, one in told)
    return [
        gauge("skypilot_autostop_last_run_timestamp_seconds", "When autostop last looked at clusters.",
              _number(state.get("ran_at"))),
        gauge("skypilot_autostop_last_failure_timestamp_seconds",
              "When autostop could not ask the API server; absent after a run that could.",
              _number(state.get("failed_at"))),
        Family("skypilot_autostop_run_failed", "Whether the last run of autostop could not ask, by why.",
               _failures(state)),
        gauge("skypilot_autostop_failed_clusters", "Clusters that could not be set, or were not reached.",
              sum(failed for _, failed in clusters)),
        Family("skypilot_cluster_autostop_failed",
               "Whether a cluster could not be set; of those alone that failed or are watched before they are told.",
               clusters),
    ]  # fmt: skip


class Source:
    """All that is told, gathered once for all who ask at the same time."""

    def __init__(
        self,
        state: Path | None,
        server: str,
        metrics: str | None,
        disks: Sequence[Path],
        autostop: Path | None = None,
    ) -> None:
        self._state, self._server, self._metrics, self._disks = state, server, metrics, disks
        self._autostop = autostop
        self._notices, self._lock = Notices(), threading.Lock()
        self._told, self._at = b"", float("-inf")

    def text(self) -> bytes:
        """Everything, not older than `FRESH`."""
        with self._lock:
            if asking.now() - self._at > FRESH:
                self._told = self._gather().encode("utf-8", "replace")
                self._at = asking.now()
            return self._told

    def _gather(self) -> str:
        own = ""
        names: frozenset[str] = frozenset()
        well: float | None = None
        if self._metrics is not None:
            failure = None
            try:
                own, names = page(self._metrics)
            except (OSError, ValueError, http.client.HTTPException) as problem:
                failure = asking.plain(problem) or type(problem).__name__
            self._notices.tell("metrics of the API server", failure)
            well = float(failure is None)
        told = gauge("skypilot_server_metrics_up", "Whether its own metrics could be had.", well)
        return own + exposition.written([*self._health(), told, *self._states(), *self._space()], names)

    def _health(self) -> list[exposition.Family]:
        version: tuple[tuple[dict[str, str], float], ...] = ()
        try:
            told = asking.health(self._server, PATIENCE)
            version = (({"version": asking.plain(told.get("version", ""), 40)}, 1.0),)
            failure = None
        except asking.Unanswered as problem:
            failure = str(problem)
        self._notices.tell("API server", failure)
        return [
            gauge("skypilot_up", "Whether the API server answers and is healthy.", float(failure is None)),
            Family("skypilot_server_info", "The version of the API server.", version),
        ]

    def _states(self) -> list[exposition.Family]:
        told: list[exposition.Family] = []
        if self._state is not None:
            state = self._read(self._state, "clusters.py", list)
            well = float(state is not None)
            told.append(
                gauge("skypilot_state_readable", "Whether the state of clusters could be read.", well)
            )
            told += of_clusters(state) if state is not None else ()
        if self._autostop is not None:
            state = self._read(self._autostop, "autostop.py", dict)
            well = float(state is not None)
            told.append(gauge("skypilot_autostop_state_readable", "Whether its state could be read.", well))
            told += of_autostop(state) if state is not None else ()
        return told

    def _read(self, path: Path, program: str, kind: type) -> dict[str, Any] | None:
        state: object = None
        failure: str | None = f"it is not JSON of {program}"
        try:
            with path.open("rb") as file:
                state = json.loads(file.read(LARGEST))
            if isinstance(state, dict) and isinstance(state.get("clusters"), kind):
                failure = None
        except OSError as problem:
            failure = problem.strerror or "it cannot be read"
        except (ValueError, RecursionError):
            pass
        self._notices.tell(f"state file {path}", failure)
        return state if isinstance(state, dict) and failure is None else None

    def _space(self) -> list[exposition.Family]:
        free, size = [], []
        for path in self._disks:
            failure = None
            try:
                usage = shutil.disk_usage(path)
                free.append(({"path": str(path)}, float(usage.free)))
                size.append(({"path": str(path)}, float(usage.total)))
            except OSError as problem:
                failure = problem.strerror or "it cannot be asked"
            self._notices.tell(f"disk {path}", failure)
        return [
            Family("skypilot_disk_free_bytes", "Space that is free where a folder lies.", tuple(free)),
            Family("skypilot_disk_size_bytes", "Space where a folder lies.", tuple(size)),
        ]


class Server(ThreadingHTTPServer):
    """A server with a bounded number of connections, each of which ends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.text = text
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__((host, port), Answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, or close it where there are too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, for `WHOLE` seconds at most."""

        def end() -> None:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(WHOLE, end)
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no failure of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("a request failed")


class Answer(BaseHTTPRequestHandler):
    """``/metrics`` and ``/healthz``, by GET and HEAD; one request a connection."""

    server: Server
    timeout = 10
    server_version = "skypilot-monitor"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._give(200, "text/plain; version=0.0.4; charset=utf-8", self.server.text())
        elif path == "/healthz":
            self._give(200, "text/plain; charset=utf-8", b"well\n")
        else:
            self._give(404, "text/plain; charset=utf-8", b"there is /metrics, and /healthz\n")

    do_HEAD = do_GET  # noqa: N815

    def _give(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close"),
                            ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as http.server has it
        """A scrape is no event: with DEBUG alone, and without what a client may put in."""
        log.debug("%s", asking.plain(format % args))


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="monitor.py", description="Metrics of SkyPilot for Prometheus.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, help="the file that clusters.py writes, where it runs")
    parser.add_argument("--autostop-state", type=Path, help="the file that autostop.py writes, where it runs")
    parser.add_argument("--server", required=True, help="the API server, as http://127.0.0.1:PORT")
    parser.add_argument("--server-metrics", help="its own metrics, as http://127.0.0.1:PORT/metrics")
    parser.add_argument(
        "--disk", type=Path, action="append", default=[], help="a folder whose disk is watched"
    )
    parser.add_argument(
        "--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), default="INFO"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=given.log_level, format="%(levelname)s %(message)s")
    source = Source(given.state, given.server, given.server_metrics, given.disk, given.autostop_state)
    host = "127.0.0.1" if given.host == "localhost" else given.host
    try:
        server = Server(host, given.port, source.text)
    except (OSError, OverflowError) as problem:
        reason = getattr(problem, "strerror", None) or "there is no such port"
        log.critical("port %s of %s cannot be listened at: %s", given.port, given.host, reason)
        return 1
    log.info("metrics at http://%s:%s/metrics", given.host, server.server_address[1])
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
