"""The programs beside SkyPilot, with an API server that is down, slow, no API server, and a disk that is full.

What needs SkyPilot itself is in tests/test_sky_programs_real.py.
"""

from __future__ import annotations

import ast
import json
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.registry import free_port
from tests.support.site import plain_environ
from tests.support.skypilot import PROGRAMS, program

asking = program("asking")
autostop = program("autostop")
clusters = program("clusters")
exposition = program("exposition")
monitor = program("monitor")


class Stub:
    """Something that listens: it says its bytes to whoever comes, or nothing at all, or one byte at a time."""

    def __init__(self, says: bytes | None, *, drip: float = 0.0) -> None:
        self._says, self._drip = says, drip
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self._open.append(client)
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        if self._says is None:
            return
        with suppress(OSError), client:
            client.recv(65536)
            if not self._drip:
                client.sendall(self._says)
                return
            for byte in self._says:
                client.sendall(bytes([byte]))
                time.sleep(self._drip)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        for client in self._open:
            client.close()


@contextmanager
def stub(says: bytes | None, *, drip: float = 0.0) -> Iterator[Stub]:
    """A `Stub` for a while."""
    one = Stub(says, drip=drip)
    try:
        yield one
    finally:
        one.close()


def answer(body: str, status: str = "200 OK") -> bytes:
    """An answer of HTTP."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}".encode()


def run(
    name: str, *arguments: object, server: str = "", before: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """One of the programs, as its unit starts it, with an interpreter that has no SkyPilot."""
    argv = [*before, sys.executable, str(PROGRAMS / name), *map(str, arguments)]
    env = {**plain_environ(), **more} | ({"SKYPILOT_API_SERVER_ENDPOINT": server} if server else {})
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


# What autostop wants, and what protects a cluster that runs.


def cluster(**named: Any) -> Any:
    """A cluster that is up and has no autostop."""
    return asking.Cluster(**{"name": "train", "status": "UP", **named})


def test_a_cluster_without_autostop_is_stopped_when_idle_and_not_torn_down() -> None:
    """Autostop is set where there is none, as a stop."""
    change = autostop.wanted(cluster(), 60)
    assert (change.cluster, change.minutes, change.down) == ("train", 60, False)


def test_another_value_is_set_to_the_sites() -> None:
    """What differs is set, whether it was more or less."""
    assert autostop.wanted(cluster(autostop=600), 60).minutes == 60
    assert autostop.wanted(cluster(autostop=10), 60).minutes == 60


@pytest.mark.parametrize("to_down", [False, True])
def test_an_equal_value_is_never_set_again_so_that_no_idle_clock_is_reset(to_down: bool) -> None:
    """SkyPilot counts idleness anew whenever autostop is set, also to what it was."""
    assert autostop.wanted(cluster(autostop=60, to_down=to_down), 60) is None


@pytest.mark.parametrize("status", ["INIT", "STOPPED", "AUTOSTOPPING", "PENDING", "None", "new in 2030"])
def test_a_cluster_that_is_not_up_is_left_alone(status: str) -> None:
    """Nothing runs there, or SkyPilot is at work on it."""
    assert autostop.wanted(cluster(status=status), 60) is None


@pytest.mark.parametrize("name", ["sky-jobs-controller-1a2b3c4d", "sky-serve-controller-1a2b3c4d"])
def test_skypilots_own_controllers_are_left_alone(name: str) -> None:
    """A controller that stopped would leave its jobs alone."""
    assert autostop.wanted(cluster(name=name), 60) is None


def test_clusters_of_managed_jobs_are_left_alone() -> None:
    """Their controller ends them."""
    assert autostop.wanted(cluster(managed=True), 60) is None


def test_what_was_to_be_torn_down_is_torn_down_still() -> None:
    """A wish for autodown outlives another number of minutes, but not its being cancelled."""
    assert autostop.wanted(cluster(autostop=10, to_down=True), 60).down
    assert not autostop.wanted(cluster(autostop=-1, to_down=True), 60).down


def test_nothing_is_torn_down_where_skypilot_does_not_tell_what_was_launched() -> None:
    """What a cloud can do is asked of the resources that were launched; without them nothing is set."""
    change = autostop.wanted(cluster(), 60)
    with pytest.raises(LookupError):
        autostop.settled(change, cluster())


def test_no_program_ever_calls_stop_or_down() -> None:
    """Of SkyPilot's client they call these functions and no other."""
    called = {
        node.attr
        for path in PROGRAMS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"sdk", "asked.sdk", "self.sdk"}
    }
    looks = {"get", "status", "queue", "cost_report", "api_status", "_local_api_server_running"}
    assert called == {*looks, "autostop", "api_cancel"}


@pytest.mark.parametrize("minutes", ["0", "-5", "soon", "1.5", "99999999"])
def test_idle_minutes_that_are_none_are_refused(minutes: str) -> None:
    """Zero would stop everything, a negative number would cancel autostop: neither gets as far as a server."""
    done = run("autostop.py", "--idle-minutes", minutes)
    assert done.returncode == 2
    assert "--idle-minutes" in done.stderr


# Records


class Record(dict[str, Any]):
    """A record of a version that gave mappings."""


def test_a_record_is_read_whether_it_is_a_mapping_or_an_object() -> None:
    """Versions before 0.11 gave the one, later ones the other; what is missing is not known."""
    for record in (Record(name="a", status="UP", autostop=5), type("R", (), {"name": "a", "status": "UP"})()):
        found = asking.cluster_of(record)
        assert (found.name, found.status, found.spot, found.region) == ("a", "UP", None, None)


def test_no_secret_of_a_command_line_is_kept() -> None:
    """Of the last command the command alone: variables and their values stand in what follows."""
    for line in (
        "sky launch --env HF_TOKEN=hf_secret x.yaml",
        "train.py --token hf_secret",
        "sky exec --secret A=b",
    ):
        kept = clusters.kept(asking.cluster_of(Record(name="a", status="UP", last_use=line)), None, None)
        assert "secret" not in json.dumps(kept), kept
        assert kept["last_use"] in {"sky launch", "train.py", "sky exec"}


# Idleness, and clocks


def jobs(*ends: float | None, status: str = "SUCCEEDED") -> list[dict[str, Any]]:
    """Jobs that ended."""
    return [{"status": status, "end_at": end} for end in ends]


def test_idleness_counts_from_the_end_of_the_last_job() -> None:
    """Or from the launch where there was none; while one runs or waits it is nothing."""
    assert clusters.idle_minutes(1000.0, jobs(1600.0, 2200.0), 2800.0, 0.0) == 10.0
    assert clusters.idle_minutes(1000.0, [], 2800.0, 0.0) == 30.0
    assert clusters.idle_minutes(1000.0, jobs(1600.0) + jobs(None, status="RUNNING"), 9e9, 0.0) == 0.0
    assert clusters.idle_minutes(1000.0, jobs(None, status="new in 2030"), 9e9, 0.0) == 0.0


def test_what_is_not_known_of_idleness_is_not_guessed() -> None:
    """A job that ended at no time, a launch that is not known, and times ahead of ours or before a jump."""
    assert clusters.idle_minutes(1000.0, jobs(None), 2800.0, 0.0) is None
    assert clusters.idle_minutes(None, jobs(1600.0), 2800.0, 0.0) is None
    assert clusters.idle_minutes(1000.0, jobs(9000.0), 2800.0, 0.0) is None
    assert clusters.idle_minutes(1000.0, jobs(1600.0), 2800.0, 2000.0) is None
    # A cluster's clock that is ahead by a little.
    assert clusters.idle_minutes(1000.0, jobs(2830.0), 2800.0, 0.0) == 0.0


def test_a_clock_that_jumps_is_noticed() -> None:
    """By the clock of the machine, which nobody moves; an adjustment of seconds and a reboot are no jump."""
    first = clusters.clock(None, 1000.0, 10.0, "a")
    assert first["steady_since"] == 0.0
    assert clusters.clock(first, 1300.0, 310.0, "a")["steady_since"] == 0.0
    assert clusters.clock(first, 1330.0, 310.0, "a")["steady_since"] == 0.0
    assert clusters.clock(first, 9e9, 310.0, "a")["steady_since"] == 9e9
    assert clusters.clock(first, 500.0, 310.0, "a")["steady_since"] == 500.0
    assert clusters.clock(first, 9000.0, 5.0, "b")["steady_since"] == 0.0
    assert clusters.clock(first, 500.0, 5.0, "b")["steady_since"] == 500.0
    # And it stays noticed, but never ahead of the clock.
    jumped = clusters.clock(first, 9e9, 310.0, "a")
    assert clusters.clock(jumped, 9e9 + 300, 610.0, "a")["steady_since"] == 9e9
    assert clusters.clock({"wall": "x"}, 1000.0, 10.0, "a")["steady_since"] == 0.0


def test_a_jump_is_remembered_in_the_state_file(tmp_path: Path) -> None:
    """With the clock of the day a year ahead, and back again, idleness before that is not computed any more."""
    state = tmp_path / "state.json"
    steady = []
    for before in ((), ("faketime", "-f", "+1y"), ()):
        done = run("clusters.py", "--state", state, before=before, FAKETIME_DONT_FAKE_MONOTONIC="1")
        assert done.returncode == 75
        steady.append(json.loads(state.read_text())["clock"]["steady_since"])
    assert steady[0] == 0.0
    assert steady[1] > time.time() + 300 * 86400
    assert abs(steady[2] - time.time()) < 60


# A server that cannot be asked

BROKEN = {
    "html": (answer("<html>hello</html>"), "broken"),
    "500": (answer("{}", "500 Internal Server Error"), "broken"),
    "login": (answer("", "302 Found"), "refused"),
    "unhealthy": (answer('{"status": "needs_auth"}'), "refused"),
    "list": (answer("[]"), "broken"),
    "garbage": (b"\x16\x03\x01 hello\r\n\r\n", "broken"),
    "ends": (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "broken"),
    "huge": (answer(" " * (2 << 20)), "broken"),
}
GOOD = {
    "format": "skypilot-clusters-1",
    "refreshed_at": 1.5,
    "clusters": [{"name": "train", "status": "UP"}],
    "left_out": 0,
    "failed_at": None,
    "failure": None,
    "server_version": "0.14.1",
    "clock": {},
}


def refuses(state: Path, server: str, failure: str, timeout: int = 20) -> None:
    """Both programs end with 75 and one sentence, and the file has the failure beside what was good."""
    state.write_text(json.dumps(GOOD))
    done = run("clusters.py", "--state", state, "--timeout", timeout, server=server)
    assert done.returncode == 75, done.stderr
    assert re.fullmatch(r"[^\n]+\.\n", done.stderr)
    told = json.loads(state.read_text())
    assert (told["failure"], told["clusters"], told["refreshed_at"]) == (failure, GOOD["clusters"], 1.5)
    assert abs(told["failed_at"] - time.time()) < 60
    stopped = run("autostop.py", "--idle-minutes", "60", "--timeout", timeout, server=server)
    assert (stopped.returncode, stopped.stdout) == (75, "")
    assert stopped.stderr == done.stderr


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_healthy_api_server_is_told_and_the_last_good_state_is_kept(
    tmp_path: Path, kind: str
) -> None:
    """Whatever answers: exit code 75, one sentence, and the word for it in the state file."""
    says, failure = BROKEN[kind]
    with stub(says) as server:
        refuses(tmp_path / "state.json", server.url, failure)


def test_a_server_that_is_down_is_told(tmp_path: Path) -> None:
    """Nothing listens there, and nothing is started in its stead."""
    refuses(tmp_path / "state.json", f"http://127.0.0.1:{free_port()}", "down")


@pytest.mark.parametrize(
    "endpoint",
    ["http://x:99999", "http://x:0", "http://x:port", "x:8080", "http://", "http://[fd00::1:8080", "http://a..b",
     "http://somebody:hunter2@x:99999", "ftp://x"],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_is_told(tmp_path: Path, endpoint: str) -> None:
    """A port there is not, no host, no URL: 75, a sentence without what it holds, and no traceback."""
    refuses(tmp_path / "state.json", endpoint, "down")
    told = run("clusters.py", "--state", tmp_path / "state.json", server=endpoint).stderr
    assert told == "The endpoint that was given is no address of an API server.\n"


def test_an_endpoint_of_ipv6_is_asked(tmp_path: Path) -> None:
    """In brackets, as URLs have it."""
    port = free_port()
    refuses(tmp_path / "state.json", f"http://[::1]:{port}", "down")
    told = run("clusters.py", "--state", tmp_path / "state.json", server=f"http://[::1]:{port}").stderr
    assert told == f"No API server answers at http://[::1]:{port}: Connection refused.\n"


def test_an_endpoint_that_nobody_named_is_told(tmp_path: Path) -> None:
    """Without one, SkyPilot's client would start a server."""
    refuses(tmp_path / "state.json", "", "down")


@pytest.mark.parametrize("drip", [None, 0.2])
def test_a_server_that_is_slow_is_not_waited_for(tmp_path: Path, drip: float | None) -> None:
    """One that never answers and one whose bytes drip: the time is for all of the answer."""
    began = time.monotonic()
    with stub(None if drip is None else answer("{}" * 900), drip=drip or 0.0) as server:
        refuses(tmp_path / "state.json", server.url, "slow", timeout=1)
    assert time.monotonic() - began < 20


def test_no_password_of_an_endpoint_is_told(tmp_path: Path) -> None:
    """Neither on standard error nor in the file."""
    endpoint = f"http://somebody:hunter2@127.0.0.1:{free_port()}/?token=hunter2"
    done = run("clusters.py", "--state", tmp_path / "state.json", server=endpoint)
    assert done.returncode == 75
    assert "hunter2" not in done.stderr + (tmp_path / "state.json").read_text()


# The state file


@pytest.mark.parametrize(
    "rotten", ["", "{", "[]", "null", "[" * 100_000, '{"format": "other", "clusters": [1]}', "\x00"]
)
def test_a_rotten_state_file_is_written_anew(tmp_path: Path, rotten: str) -> None:
    """What it held is gone; nothing else is."""
    state = tmp_path / "state.json"
    state.write_text(rotten)
    assert run("clusters.py", "--state", state).returncode == 75
    told = json.loads(state.read_text())
    assert (told["clusters"], told["failure"], told["refreshed_at"]) == ([], "down", None)


def test_the_state_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    """Mode 0640, whatever the umask, and nothing lies beside it."""
    state = tmp_path / "state.json"
    run("clusters.py", "--state", state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [state]


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    """Exit code 1, one sentence, the bytes of before, and no half file."""
    room = tmp_path / "room"
    room.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", room]).returncode:
        pytest.skip("cannot mount a tmpfs here")
    script = (
        f"mount -t tmpfs -o size=64k tmpfs {room} && echo -n old > {room}/state.json && "
        f"(head -c 1M /dev/zero > {room}/full || true) 2>/dev/null; "
        f"{sys.executable} {PROGRAMS}/clusters.py --state {room}/state.json; echo $?; "
        f"cat {room}/state.json; echo; ls -A {room}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=plain_environ()
    )
    assert done.stdout.split() == ["1", "old", "full", "state.json"], done.stderr
    assert "is as it was: No space left on device." in done.stderr


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Exit code 1 and a sentence, not a traceback."""
    done = run("clusters.py", "--state", tmp_path / "none" / "state.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_example_of_the_specification_is_what_is_written() -> None:
    """The keys of the file and of a cluster are those of the example, and the monitor tells of all of them."""
    example = Path(__file__).parent.parent / "docs" / "spec" / "examples" / "skypilot-clusters.json"
    told = clusters.read(example)
    kept = clusters.kept(cluster(), None, None)
    assert {tuple(sorted(one)) for one in told["clusters"]} == {tuple(sorted(kept))}
    assert set(told) == set(GOOD)
    text = exposition.written(monitor.of_clusters(told))
    assert value(text, "skypilot_last_refresh_timestamp_seconds") == told["refreshed_at"]
    for one in told["clusters"]:
        assert value(text, f'skypilot_cluster_autostop_set{{cluster="{one["name"]}"}}') is not None


# The server


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """Before SkyPilot is started, which would say so in a traceback, and for the metrics not at all."""
    (tmp_path / "sky" / "server").mkdir(parents=True)
    (tmp_path / "sky" / "__init__.py").write_text("raise SystemExit('SkyPilot was started')\n")
    (tmp_path / "sky" / "server" / "server.py").write_text("'--metrics-port'\n")
    with stub(None) as other:
        for ports in ((other.port, free_port()), (free_port(), other.port)):
            words = ("--host", "127.0.0.1", "--port", ports[0], "--metrics-port", ports[1])
            done = run("server.py", *words, PYTHONPATH=str(tmp_path))
            assert (done.returncode, done.stderr) == (1, f"Port {other.port} of 127.0.0.1 is taken.\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--host 10.0.0.1 --port 8080", "invalid choice: '10.0.0.1'"),
        ("--host 127.0.0.1 --port 8080 --metrics-port 8080", "a port of their own"),
        ("--host 127.0.0.1 --port 70000", "70000 is no port"),
        ("--host 127.0.0.1 --port 8080", "has no SkyPilot with an API server"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(words: str, sentence: str) -> None:
    """A host that SkyPilot does not take, ports that are equal or none, and a Python without SkyPilot: code 2."""
    done = run("server.py", *words.split())
    assert done.returncode == 2
    assert sentence in done.stderr


# The text of metrics


def test_hostile_labels_are_escaped() -> None:
    """Quotes, backslashes, line breaks and braces stay within their label."""
    evil = 'a"} 1\nskypilot_up 0\\'
    text = exposition.written([exposition.Family("x", "About\nit \\.", (({"cluster": evil}, 1.0),))])
    assert text.count("\n") == 3
    assert exposition.names(text) == {"x"}


@pytest.mark.parametrize(
    "text",
    ["<html>", "a1", "a b", "a{b=c} 1", 'a{b="c} 1', "a 1 2 3", "1a 1", "# TYPE a gouge", "# TYPE a gauge\n# TYPE a gauge",
     "a 1\nb 1\na 2", "# HELP"],
)  # fmt: skip
def test_what_is_no_text_of_metrics_is_refused(text: str) -> None:
    """Prometheus would take nothing of the whole page."""
    with pytest.raises(ValueError):
        exposition.names(text)


@pytest.mark.parametrize(
    "line", ["a N!", 'a{b="c"N!', "a 1N!", "aN!", 'a{b="N!', "a 1.N!", 'a{b="c",N!', "a 1 N!"]
)
@pytest.mark.parametrize("run", [" ", "1"])
def test_long_lines_take_no_time(line: str, run: str) -> None:
    """A run of spaces or digits is looked at a few times, not once for every way to share it out."""
    began = time.monotonic()
    with pytest.raises(ValueError):
        exposition.names(line.replace("N", run * 300_000))
    assert time.monotonic() - began < 10


def test_families_are_told_from_their_parts() -> None:
    """Buckets, sums and counts are lines of their histogram."""
    text = (
        "# HELP a About.\n# TYPE a histogram\n"
        'a_bucket{le="1"} 1\na_bucket{le="+Inf"} 2\na_sum 3.5e-07\na_count 2\n'
        '# a comment\n# TYPE b_total counter\nb_total{x="é",} 1 1700000000000\n# TYPE c gauge\nc NaN\n'
    )
    assert exposition.names(text) == {"a", "b_total", "c"}


# The monitor


@contextmanager
def monitoring(
    state: Path, *more: object, server: str = "http://127.0.0.1:9", ready: bool = True
) -> Iterator[tuple[str, Path]]:
    """A monitor, its address and its log."""
    port = free_port()
    log = state.with_name("monitor.log")
    words = ["--host", "127.0.0.1", "--port", port, "--state", state, "--server", server, *more]
    argv = [sys.executable, str(PROGRAMS / "monitor.py"), *map(str, words)]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, env=plain_environ(), stdout=out, stderr=out)
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", log
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(20)


def page(url: str) -> str:
    """What is told there."""
    with urllib.request.urlopen(url, timeout=30) as given:
        return str(given.read().decode())


def value(text: str, sample: str) -> float | None:
    """The value of a line of metrics."""
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


STATE = {
    **GOOD,
    "refreshed_at": 1_763_000_000.5,
    "clusters": [
        clusters.kept(
            cluster(name="train", autostop=60, cloud="aws", region="us-west-2", spot=True), 12.5, 3.25
        ),
        clusters.kept(cluster(name='evil"\n\\', status="STOPPED"), None, None),
    ],
}
OWN = '# HELP sky_requests_total Requests.\n# TYPE sky_requests_total counter\nsky_requests_total{path="/"} 4.0\n'


def test_the_page_tells_of_clusters_and_passes_promtool(tmp_path: Path) -> None:
    """The server's own lines first, then ours, by Prometheus' own rules, with hostile names."""
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    with stub(answer('{"status": "healthy", "version": "0.14.1"}')) as server, stub(answer(OWN)) as own:
        more = ("--server-metrics", f"{own.url}/metrics", "--disk", tmp_path, "--disk", tmp_path / "none")
        with monitoring(tmp_path / "state.json", *more, server=server.url) as (url, _):
            text = page(f"{url}/metrics")
            assert page(f"{url}/healthz") == "well\n"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                page(f"{url}/state.json")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert text.startswith(OWN)
    expected = {
        "skypilot_up": 1,
        'skypilot_server_info{version="0.14.1"}': 1,
        "skypilot_server_metrics_up": 1,
        "skypilot_state_readable": 1,
        'skypilot_clusters{status="UP"}': 1,
        'skypilot_clusters{status="STOPPED"}': 1,
        'skypilot_clusters{status="INIT"}': 0,
        'skypilot_cluster_idle_seconds{cluster="train"}': 750,
        'skypilot_cluster_autostop_seconds{cluster="train"}': 3600,
        'skypilot_cluster_autostop_set{cluster="train"}': 1,
        'skypilot_cluster_autostop_seconds{cluster="evil\\"\\n\\\\"}': -1,
        'skypilot_cluster_autostop_set{cluster="evil\\"\\n\\\\"}': 0,
        'skypilot_cluster_cost_dollars{cluster="train"}': 3.25,
        "skypilot_last_refresh_timestamp_seconds": 1_763_000_000.5,
        'skypilot_refresh_failed{failure="down"}': 0,
    }
    assert {sample: value(text, sample) for sample in expected} == expected
    assert 'skypilot_cluster_idle_seconds{cluster="evil' not in text
    assert value(text, f'skypilot_disk_free_bytes{{path="{tmp_path}"}}')


def test_a_monitor_of_an_endpoint_that_cannot_be_tells_that_it_is_not_up(tmp_path: Path) -> None:
    """The page stands, and says so; without a state file it tells of none and complains of none."""
    port = free_port()
    words = ["--host", "127.0.0.1", "--port", port, "--server", "http://x:99999"]
    argv = [sys.executable, str(PROGRAMS / "monitor.py"), *map(str, words)]
    process = subprocess.Popen(argv, env=plain_environ(), stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        text = page(f"http://127.0.0.1:{port}/metrics")
    finally:
        process.terminate()
        log = process.communicate(timeout=20)[1]
    assert value(text, "skypilot_up") == 0
    assert "skypilot_state_readable" not in text
    assert "state file" not in log


def test_no_family_is_told_twice(tmp_path: Path) -> None:
    """Where the server has a name of ours, its lines stand and ours do not."""
    own = "# TYPE skypilot_up gauge\nskypilot_up 0.5\n"
    with (
        stub(answer(own)) as server,
        monitoring(tmp_path / "none", "--server-metrics", f"{server.url}/metrics") as (url, _),
    ):
        text = page(f"{url}/metrics")
    assert value(text, "skypilot_up") == 0.5
    assert text.count("# TYPE skypilot_up gauge") == 1
    assert subprocess.run(["promtool", "check", "metrics"], input=text, text=True).returncode in {0, 3}


@pytest.mark.parametrize(
    "says",
    [
        answer("<html>"),
        answer(OWN, "500 Oops"),
        answer(OWN + OWN),
        answer("\xff"),
        None,
        answer("a 1\n" * 5_000_000),
    ],
    ids=["html", "500", "twice", "latin", "silent", "huge"],
)
def test_metrics_of_the_server_that_are_broken_are_left_out_and_told(
    tmp_path: Path, says: bytes | None
) -> None:
    """The rest of the page stands, by Prometheus' rules, within the time of a scrape; the log has one line of it."""
    if says == answer("\xff"):
        says = b'HTTP/1.1 200 OK\r\n\r\na{b="\xff"} 1\n'
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    with (
        stub(says) as server,
        monitoring(tmp_path / "state.json", "--server-metrics", f"{server.url}/metrics") as (url, log),
    ):
        began = time.monotonic()
        text = page(f"{url}/metrics")
        assert time.monotonic() - began < 10
        time.sleep(1.1)
        page(f"{url}/metrics")
        told = [line for line in log.read_text().splitlines() if "metrics of the API server" in line]
    assert len(told) == 1, told
    assert "sky_requests_total" not in text
    assert value(text, "skypilot_server_metrics_up") == 0
    assert value(text, 'skypilot_clusters{status="UP"}') == 1
    assert subprocess.run(["promtool", "check", "metrics"], input=text, text=True).returncode == 0


@pytest.mark.parametrize(
    ("rotten", "readable"),
    [(None, 0), ("", 0), ("{", 0), ("[" * 100_000, 0), ('{"clusters": 5}', 0),
     ('{"clusters": [5, {}, {"name": 5}], "refreshed_at": "x", "left_out": []}', 1),
     ('{"clusters": [{"name": "a", "idle_minutes": "x", "status": [], "spot": 5, "user": {}}], "failure": []}', 1)],
    ids=["absent", "empty", "cut", "deep", "number", "odd", "odder"],
)  # fmt: skip
def test_a_state_file_that_is_absent_or_rotten_breaks_nothing(
    tmp_path: Path, rotten: str | None, readable: int
) -> None:
    """The page is by the rules, and tells when there is no state."""
    state = tmp_path / "state.json"
    if rotten is not None:
        state.write_text(rotten)
    with monitoring(state) as (url, _):
        text = page(f"{url}/metrics")
    assert value(text, "skypilot_up") == 0
    assert value(text, "skypilot_state_readable") == readable
    assert subprocess.run(["promtool", "check", "metrics"], input=text, text=True).returncode == 0


def test_a_failure_and_its_end_are_one_line_each(tmp_path: Path) -> None:
    """Not one for every scrape."""
    state = tmp_path / "state.json"
    with monitoring(state) as (url, log):
        for good in (False, False, True, True):
            if good:
                state.write_text(json.dumps(STATE))
            page(f"{url}/metrics")
            time.sleep(1.1)
        lines = [line for line in log.read_text().splitlines() if "state file" in line]
    assert [line.rpartition(": ")[2] for line in lines] == ["No such file or directory", "well again"]


def test_clients_that_say_nothing_keep_nobody_out_for_long(tmp_path: Path) -> None:
    """Connections are bounded in number and in time: after that of a silent one, others are answered."""
    with monitoring(tmp_path / "none") as (url, _):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        silent = [socket.create_connection(address, timeout=30) for _ in range(monitor.CONNECTIONS)]
        time.sleep(0.5)
        with pytest.raises(OSError):
            page(f"{url}/healthz")
        for one in silent:
            assert one.recv(1) == b""
            one.close()
        assert page(f"{url}/healthz") == "well\n"


@pytest.mark.parametrize("port", ["taken", "70000"])
def test_a_monitor_whose_port_is_none_says_so(tmp_path: Path, port: str) -> None:
    """Exit code 1 and a line, not a traceback."""
    with stub(None) as other:
        number = other.port if port == "taken" else port
        done = run(
            "monitor.py",
            "--host",
            "127.0.0.1",
            "--port",
            number,
            "--state",
            tmp_path / "x",
            "--server",
            "http://a",
        )
    assert done.returncode == 1
    assert "cannot be listened at" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_programs_are_for_python_310() -> None:
    """SkyPilot runs on 3.10 too: no syntax is newer."""
    for path in PROGRAMS.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 10))
