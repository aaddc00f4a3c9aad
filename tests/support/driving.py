"""What drives a control machine that runs SkyPilot's services: run in it as root, by any Python, without haversack.

Each step writes what it saw under its name into ``/out/seen.json``; a step that fails leaves its traceback there and
the others go on.  What must be true of all that is said by tests/test_systemd_real.py.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

OUT = Path("/out")
SERVER, MANAGER, MONITOR, STOPPER = (
    f"skypilot-{name}.service" for name in ("web-ui", "cluster-manager", "monitor", "autostop")
)
MIRROR = "haversack.service"
STARTED = (SERVER, MONITOR, "skypilot-cluster-manager.timer", "skypilot-autostop.timer")
STORE = Path("/var/lib/haversack/store")
HOME, CACHE, LOGS = (Path(f"/var/{name}/skypilot") for name in ("lib", "cache", "log"))
MADE = (
    "/opt/haversack",
    "/opt/skypilot",
    "/opt/amazon",
    "/var/lib/haversack",
    "/etc/skypilot",
    str(HOME),
    str(CACHE),
)
HAVERSACK = ("env", f"HAVERSACK_STORE={STORE}", "/opt/haversack/bin/haversack")
URL = "http://127.0.0.1:8080"
CREDENTIAL = Path("/etc/secrets/aws")
KEY, SECRET = "AKIDOFTHETEST", "secretofthetest"
SITE = "https://127.0.0.1:8090"
NODE = "10.0.1.10"
_MOVED = """\
import os, time
told, moved = time.time, float(os.environ["MOVED_CLOCK"])
time.time = lambda: told() + moved
"""

seen: dict[str, Any] = {}


def step(work: Callable[[], Any]) -> Callable[[], Any]:
    """A step, and what it saw."""

    def run() -> None:
        began = time.monotonic()
        try:
            found = work()
        except Exception:
            found = {"broken": traceback.format_exc()}
        seen[work.__name__] = found
        seen.setdefault("seconds", {})[work.__name__] = round(time.monotonic() - began, 1)
        (OUT / "seen.json").write_text(json.dumps(seen, indent=1, default=str))

    return run


def run(*words: str | Path, **more: Any) -> tuple[int, str]:
    """Exit code and everything said, of a program that has its time."""
    done = subprocess.run(
        list(map(str, words)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
        **more,
    )
    return done.returncode, done.stdout


def must(*words: str | Path) -> None:
    """Run what nothing goes on without."""
    code, said = run(*words)
    if code:
        raise SystemExit(f"{words} ended with {code}: {said}")


def haversack(*words: str | Path) -> tuple[int, str]:
    """haversack, as it was installed from the bundle."""
    return run(*HAVERSACK, *words)


def shown(unit: str) -> dict[str, str]:
    """What systemd knows of a unit."""
    names = "ActiveState,SubState,Result,ExecMainStatus,NRestarts,MainPID,InvocationID"
    _, told = run("systemctl", "show", "-p", names, unit)
    return dict(line.split("=", 1) for line in told.splitlines())


def journal(unit: str) -> str:
    """What a unit said so far."""
    run("journalctl", "--sync")
    return run("journalctl", "-b", "-o", "cat", "--no-pager", "-u", unit)[1]


def group(unit: str) -> list[int]:
    """The processes in a unit's group."""
    found = []
    for path in Path(f"/sys/fs/cgroup/system.slice/{unit}").rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += list(map(int, path.read_text().split()))
    return found


def servers() -> dict[str, int]:
    """How many processes of an API server there are, by the unit they are in."""
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"sky.server" in (process / "cmdline").read_bytes():
                unit = (process / "cgroup").read_text().rpartition("0::")[2].strip().rpartition("/")[2]
                found[unit] = found.get(unit, 0) + 1
    return found


def get(url: str, seconds: float = 10) -> tuple[int, str]:
    """Status and body; 0 and the reason when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=seconds, context=trusting(url)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()
    except OSError as problem:
        return 0, str(problem)


def trusting(url: str) -> ssl.SSLContext | None:
    """The site's CA, where it is needed."""
    return ssl.create_default_context(cafile="/etc/ssl/site-ca.pem") if url.startswith("https") else None


def fetched(name: str) -> Any:
    """An answer of the mirror's with a guarded file, to be read."""
    login = base64.b64encode(f"alice:{SECRET}".encode()).decode()
    request = urllib.request.Request(f"{SITE}/files/{name}", headers={"Authorization": f"Basic {login}"})
    return urllib.request.urlopen(request, timeout=30, context=trusting(SITE))


def digest(answer: Any, begun: bytes = b"") -> str:
    """The SHA-256 of a body, to its end."""
    state = hashlib.sha256(begun)
    while chunk := answer.read(1 << 20):
        state.update(chunk)
    return state.hexdigest()


def serial() -> str:
    """The certificate that the mirror shows."""
    return hashlib.sha256(ssl.get_server_certificate(("127.0.0.1", 8090)).encode()).hexdigest()


def held() -> list[tuple[str, int, int]]:
    """Everything in the store, with its size and time."""
    found = [(str(path), path.lstat()) for path in STORE.rglob("*")]
    return sorted((path, state.st_size, state.st_mtime_ns) for path, state in found)


def inside(unit: str, *words: str | Path) -> tuple[int, str]:
    """A program among the files that a unit sees, as its user."""
    main = shown(unit)["MainPID"]
    user = pwd.getpwuid(Path(f"/proc/{main}").stat().st_uid).pw_name
    return run(
        "nsenter", "-t", main, "-m", "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words
    )


def wait(what: Callable[[], Any], seconds: float) -> Any:
    """What a question gives as soon as it is true, or in the end."""
    until = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def healthy(seconds: float = 90) -> float:
    """Seconds until the API server says it is; -1 if it never does."""
    began = time.monotonic()
    good = wait(lambda: '"healthy"' in get(f"{URL}/api/health", 3)[1], seconds)
    return round(time.monotonic() - began, 1) if good else -1.0


def metrics() -> str:
    """What Prometheus would read."""
    return get("http://127.0.0.1:9090/metrics", 20)[1]


def state() -> Any:
    """The state of clusters as it is kept."""
    path = CACHE / "clusters.json"
    return json.loads(path.read_text()) if path.exists() else None


def oneshot(unit: str) -> dict[str, Any]:
    """Start a unit that ends by itself, and see what it left."""
    began, before = time.monotonic(), len(journal(unit))
    code, _ = run("systemctl", "start", unit)
    took = round(time.monotonic() - began, 1)
    return {"code": code, **shown(unit), "said": journal(unit)[before:], "took": took, "group": group(unit)}


def owned(path: str | Path) -> str:
    """Mode, user and group of a file, as ``0750 skypilot``."""
    found = Path(path).stat()
    return f"{stat.S_IMODE(found.st_mode):04o} {pwd.getpwuid(found.st_uid).pw_name}"


@contextlib.contextmanager
def standing(answer: bytes | None) -> Iterator[None]:
    """Somebody else at the API server's port, who gives each the same answer, or none, ever."""
    with socket.create_server(("127.0.0.1", 8080), backlog=50) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    with contextlib.suppress(OSError), connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()


@step
def bootstrapped() -> Any:
    """From the bundle alone: haversack, its store, and Amazon, as far as a check of credentials sees it."""
    must("sh", "/media/bundle/volume-001/bootstrap.sh", "/opt/haversack")
    must(*HAVERSACK, "receive", "/media/bundle")
    must(*HAVERSACK, "install", "amazon", "--to", "/opt/amazon")
    for person in ("alice", "bob"):
        must("useradd", "-m", "-s", "/bin/bash", person)
    log = (OUT / "moto.log").open("wb")
    subprocess.Popen(["/opt/amazon/bin/moto_server", "-H", "127.0.0.1", "-p", "5555"], stdout=log, stderr=log)
    # What is waited for is shorter here, and nothing else.
    for name in ("cluster-manager", "autostop"):
        folder = Path(f"/etc/systemd/system/skypilot-{name}.timer.d")
        folder.mkdir(parents=True)
        (folder / "soon.conf").write_text(
            "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nOnUnitInactiveSec=5s\nAccuracySec=100ms\n"
        )


@step
def credential_missing() -> Any:
    """The service is installed while its credential is not there yet."""
    CREDENTIAL.parent.mkdir(mode=0o755)
    installed = haversack("install", "skypilot-service")
    failed = wait(lambda: shown(SERVER)["SubState"] == "auto-restart" and shown(SERVER), 20)
    return {
        "installed": installed,
        "failed": failed,
        "said": journal(SERVER),
        "doctor": haversack("doctor", "systemd", "--json")[1],
    }


@step
def credential_appears() -> Any:
    """It comes back by itself when the file is there."""
    CREDENTIAL.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    CREDENTIAL.chmod(0o600)
    return {"healthy": healthy(), "unit": shown(SERVER)}


@step
def installed() -> Any:
    """The same install again: what was not done the first time."""
    first = haversack("install", "skypilot-service")
    before = shown(SERVER)["InvocationID"]
    again = haversack("install", "skypilot-service")
    return {
        "first": first,
        "again": again,
        "restarted": before != shown(SERVER)["InvocationID"],
        "user": run("getent", "passwd", "skypilot")[1],
        "modes": {str(path): owned(path) for path in (HOME, HOME / "config", CACHE, LOGS)},
        "units": {unit: run("systemctl", "is-enabled", unit)[1].strip() for unit in STARTED},
        "active": {unit: shown(unit)["ActiveState"] for unit in STARTED},
        "edited": haversack("doctor", "systemd", "--json")[1],
    }


def lodged() -> Any:
    """Where logs of requests lie that the server writes now."""
    own = HOME / ".sky" / "api_server" / "request_logs"
    return [str(own.resolve()), len(list(own.glob("*.log")))]


@step
def answers() -> Any:
    """The server's health and dashboard, and how tightly it sits."""
    return {
        "health": json.loads(get(f"{URL}/api/health")[1]),
        "dashboard": get(f"{URL}/")[0],
        "html": "<html" in get(f"{URL}/")[1].lower(),
        "enabled": run("systemctl", "is-enabled", SERVER)[1].strip(),
        "listening": run("ss", "-Hltn")[1].split("\n"),
        "logs": lodged(),
    }


@step
def credential_is_private() -> Any:
    """Who can read the credential, and the copy that the service has."""
    copy = Path(f"/run/credentials/{SERVER}/aws")
    main = shown(SERVER)["MainPID"]
    return {
        "source": {who: run("runuser", "-u", who, "--", "cat", CREDENTIAL)[0] for who in ("skypilot", "bob")},
        "copy": {who: run("runuser", "-u", who, "--", "cat", copy)[0] for who in ("skypilot", "bob")},
        "elsewhere": run(
            "grep", "-rlsF", SECRET, "/etc", "/var/lib/skypilot", "/var/log", "/var/cache/skypilot"
        )[1],
        "environment": KEY in Path(f"/proc/{main}/environ").read_text(errors="replace"),
    }


@step
def monitor() -> Any:
    """What Prometheus reads, and what promtool thinks of it."""
    wait(lambda: metrics().count("\nsky_"), 20)
    text = metrics()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return {"code": done.returncode, "said": done.stdout + done.stderr, "text": text}


@step
def timers() -> Any:
    """Both timers start what they are for, again after it failed, and as nobody shortened them."""
    wait(lambda: (state() or {}).get("refreshed_at"), 120)
    wait(lambda: all(f"Finished {unit}" in journal(unit) for unit in (MANAGER, STOPPER)), 90)
    found = {
        "said": {unit: journal(unit) for unit in (MANAGER, STOPPER)},
        "state": state(),
        "mode": owned(CACHE / "clusters.json"),
        "servers": servers(),
    }
    both = [f"{name}.timer" for name in ("skypilot-cluster-manager", "skypilot-autostop")]
    run("systemctl", "stop", *both)
    for timer in both:
        shutil.rmtree(f"/etc/systemd/system/{timer}.d")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", *both)
    names = "TimersMonotonic,TimersCalendar,NextElapseUSecMonotonic"
    return {**found, "timers": {timer: run("systemctl", "show", "-p", names, timer)[1] for timer in both}}


@step
def people() -> Any:
    """Somebody else uses `sky`, with a login's variables and without; an administrator has what is listed, alone."""

    def as_(who: str, line: str) -> tuple[int, str]:
        return run("runuser", "-l", who, "-c", line)

    bare = "env -u SKYPILOT_API_SERVER_ENDPOINT -u SKYPILOT_DISABLE_LOCAL_API_SERVER"
    with ThreadPoolExecutor() as pool:
        asked = {
            word: pool.submit(as_, "bob", line)
            for word, line in (("status", "sky status"), ("check aws", f"{bare} sky check aws"))
        }
    return {
        "status": asked["status"].result(),
        "check": asked["check aws"].result(),
        "servers": servers(),
        "state": run("runuser", "-u", "bob", "--", "ls", HOME)[0],
        "sudo": {
            line: as_(who, f"sudo -n systemctl {line}")[0]
            for who, line in (
                ("alice", f"status --no-pager {MONITOR}"),
                ("alice", f"restart {MONITOR}"),
                ("alice", f"stop {MANAGER}"),
                ("alice", "stop systemd-journald.service"),
                ("alice", f"edit {MONITOR}"),
                ("alice", f"restart {MONITOR} dbus.service"),
            )
        },
        "bob": as_("bob", f"sudo -n systemctl restart {MONITOR}")[0],
    }


@step
def cluster() -> Any:
    """A cluster of one machine, which is a real sshd here and a record of moto's Amazon, and what the timers do to it."""
    main = Path(f"/proc/{shown(SERVER)['MainPID']}/environ").read_text().split("\0")
    env = dict(pair.split("=", 1) for pair in main if pair.startswith(("AWS_", "HOME=", "PATH=")))
    python, node = "/opt/skypilot/bin/python", HOME / "nodes" / NODE
    ami = json.loads(run("/opt/amazon/bin/python", "/opt/test/ami.py")[1].splitlines()[-1])
    for key in ("key", "hostkey"):
        must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", HOME / key)
    Path("/run/sshd").mkdir()
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", "/opt/test/sshd_config", "-E", OUT / "sshd.log"])
    more = {"CLUSTERS": json.dumps([{"train": {}}, {"train": NODE}]), "AMI": ami}
    made = run(python, "/opt/test/nodes.py", env={**env, **more})
    # One that never had a job is watched for half an hour first.
    user = (HOME / ".sky" / "user_hash").read_text().strip()
    job = "from sky.skylet import job_lib as j; "
    job += f"j.set_status(j.add_job('j', '{user}', 'sky-2026', '1x[CPU:1]')[0], j.JobStatus.SUCCEEDED)"
    run(python, "-c", job, env={**env, "HOME": str(node)})
    must("chown", "-R", "skypilot:skypilot", HOME)

    def told() -> Any:
        look = "import json; from sky.skylet import autostop_lib as a; c = a.get_autostop_config(); "
        look += "print(json.dumps([c.autostop_idle_minutes, c.down, a.get_last_active_time()]))"
        return run(python, "-c", look, env={**env, "HOME": str(node)})[1].splitlines()[-1]

    steps = [oneshot(MANAGER), state(), oneshot(STOPPER), told(), oneshot(STOPPER), told(), oneshot(MANAGER)]
    machines = "import boto3; print(*(i['State']['Name'] for r in boto3.client('ec2').describe_instances()"
    machines += "['Reservations'] for i in r['Instances']))"
    return {
        "made": made,
        **dict(zip(("before", "state", "set", "told", "again", "told again", "after"), steps, strict=True)),
        "kept": state(),
        "metrics": metrics(),
        "machines": run(python, "-c", machines, env=env)[1].split(),
        "servers": servers(),
    }


@step
def killed() -> Any:
    """The disk of the logs is full when the server's main process is killed: all of it ends, and it comes back."""
    run(
        "mount", "-t", "tmpfs", "-o", f"size=1m,mode=0750,uid={pwd.getpwnam('skypilot').pw_uid}", "logs", LOGS
    )
    with contextlib.suppress(OSError), (LOGS / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(65536))
            filler.flush()
    before, old = shown(SERVER), set(group(SERVER))
    os.kill(int(before["MainPID"]), 9)
    wait(lambda: shown(SERVER)["MainPID"] not in ("0", before["MainPID"]), 30)
    found = {
        "healthy": healthy(),
        "free": os.statvfs(LOGS).f_bavail,
        "logs": lodged(),
        "said": journal(SERVER),
        "seen": run("nsenter", "-t", shown(SERVER)["MainPID"], "-m", "df", "--output=avail", LOGS)[1].split(),
        "before": before,
        "after": shown(SERVER),
        "old": sorted(old & set(group(SERVER))),
        "metrics": metrics(),
        "manager": oneshot(MANAGER),
        "monitor": shown(MONITOR),
    }
    (LOGS / "filler").unlink()
    return found


@step
def stopped() -> Any:
    """A stop of the server, with a request under way that would never end: its machine says nothing any more."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text() == "sshd\n":
                os.kill(int(process.name), signal.SIGSTOP)
    asked = journal(SERVER).count('"POST /queue')
    asking = subprocess.Popen(["runuser", "-l", "bob", "-c", "/opt/skypilot/bin/sky queue train"])
    wait(lambda: journal(SERVER).count('"POST /queue') > asked, 60)
    time.sleep(2)
    before = len(journal(SERVER))
    began = time.monotonic()
    code, _ = run("systemctl", "stop", SERVER)
    took = time.monotonic() - began
    asking.kill()
    said = journal(SERVER)[before:]
    sizes = [path.stat().st_size for path in LOGS.rglob("*") if path.is_file()]
    return {
        "code": code,
        "took": round(took, 1),
        **shown(SERVER),
        "group": group(SERVER),
        "servers": servers(),
        "under way": said.count("on-going requests found, waiting for them"),
        "journal": before + len(said),
        "said": said,
        "logs": sum(sizes),
        "server.log": [path.stat().st_size for path in (HOME / ".sky/api_server").glob("*.log")],
    }


@step
def down() -> Any:
    """No server at all, while the timers' services run."""
    found = {unit: oneshot(unit) for unit in (MANAGER, STOPPER)}
    text = metrics()
    return {**found, "servers": servers(), "state": state(), "metrics": text}


@step
def slow() -> Any:
    """Somebody accepts and never answers."""
    with standing(None):
        found = {MANAGER: oneshot(MANAGER), "metrics": metrics()}
    return {**found, "servers": servers(), "state": state()}


@step
def other_version() -> Any:
    """A server of a version that this client does not speak with."""
    told = {
        "status": "healthy", "api_version": "1", "version": "0.8.0", "version_on_disk": "0.8.0", "commit": "x",
        "basic_auth_enabled": False, "user": None,
    }  # fmt: skip
    body = json.dumps(told).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nX-SkyPilot-API-Version: 1\r\n"
    with standing(head + f"X-SkyPilot-Version: 0.8.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body):
        found = {unit: oneshot(unit) for unit in (MANAGER, STOPPER)}
    return {**found, "servers": servers(), "state": state(), "metrics": metrics()}


@step
def clock() -> Any:
    """The clock of whoever looks at clusters is a day ahead, then a day behind.

    Python starts with another clock of the day, since the machine's is everybody's; libfaketime under a program of
    threads ended it with a signal now and then.
    """
    moving = Path("/opt/test/clock")
    moving.mkdir(parents=True)
    (moving / "sitecustomize.py").write_text(_MOVED)
    folder = Path(f"/run/systemd/system/{MANAGER}.d")
    folder.mkdir(parents=True)
    found: dict[str, Any] = {}
    for name, moved in (("ahead", 86_400), ("behind", -86_400)):
        (folder / "clock.conf").write_text(
            f"[Service]\nEnvironment=PYTHONPATH={moving} MOVED_CLOCK={moved}\n"
        )
        run("systemctl", "daemon-reload")
        found[name] = {**oneshot(MANAGER), "state": state(), "metrics": metrics()}
    (folder / "clock.conf").unlink()
    run("systemctl", "daemon-reload")
    return found


@step
def port_taken() -> Any:
    """Somebody else has the port; the server says so, and starts when it is free."""
    before = len(journal(SERVER))
    with standing(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"):
        run("systemctl", "start", SERVER)
        failed = wait(lambda: shown(SERVER)["SubState"] == "auto-restart" and shown(SERVER), 30)
        said = journal(SERVER)[before:]
        status = get(f"{URL}/api/health")[0]
    return {"failed": failed, "said": said, "status": status, "healthy": healthy()}


@step
def ended() -> Any:
    """Everything is stopped."""
    began = time.monotonic()
    code, said = run("systemctl", "stop", *STARTED)
    owner = pwd.getpwnam("skypilot").pw_uid
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == owner:
                left.append((process / "cmdline").read_text().replace("\0", " "))
    return {
        "code": code,
        "said": said,
        "took": round(time.monotonic() - began, 1),
        "left": left,
        "units": {unit: shown(unit) for unit in STARTED},
        "failed": run("systemctl", "list-units", "--failed", "--plain", "--no-legend")[1],
        "journal": {unit: len(journal(unit)) for unit in (SERVER, MONITOR, MANAGER, STOPPER)},
    }


@step
def mirror() -> Any:
    """The site's mirror with TLS and logins, which only root can read."""
    secrets = CREDENTIAL.parent
    haversack("ca", "create", secrets / "ca")
    for name in ("old", "new"):
        haversack("ca", "issue", secrets / "ca", "127.0.0.1", "-o", secrets / name)
    for part in ("pem", "key"):
        shutil.copy(secrets / f"old/127.0.0.1.{part}", secrets / f"mirror.{part}")
        (secrets / f"mirror.{part}").chmod(0o600)
    shutil.copy(secrets / "ca/ca.pem", "/etc/ssl/site-ca.pem")
    done = subprocess.run(
        [*HAVERSACK, "user", "add", secrets / "users.toml", "alice", "--password-stdin"],
        input=SECRET, capture_output=True, text=True, check=False,
    )  # fmt: skip
    with (secrets / "users.toml").open("a") as users:
        users.write('[[rule]]\npath = "/files/"\nallow = ["alice"]\n')
    (secrets / "users.toml").chmod(0o600)
    before = held()
    found = {"user": done.stderr, "installed": haversack("install", "haversack-service")}
    return {
        **found,
        "unit": shown(MIRROR),
        "owner": owned(f"/proc/{shown(MIRROR)['MainPID']}"),
        "page": get(f"{SITE}/pypi/simple/click/")[0],
        "stranger": get(f"{SITE}/files/big.bin")[0],
        "alice": digest(fetched("big.bin")),
        "metrics": get("http://127.0.0.1:9091/metrics")[0],
        "writes": inside(MIRROR, "touch", STORE / "x"),
        "reads": inside(MIRROR, "cat", secrets / "mirror.key"),
        "copies": {
            who: run("runuser", "-u", who, "--", "cat", f"/run/credentials/{MIRROR}/tls-key")[0]
            for who in ("haversack", "bob")
        },
        "store": before == held(),
    }


@step
def mirror_reloads() -> Any:
    """A reload and a stop while somebody downloads, and a certificate that is renewed."""
    secrets = CREDENTIAL.parent
    before = shown(MIRROR)["MainPID"], serial()
    found: dict[str, Any] = {}
    with fetched("big.bin") as answer:
        begun = answer.read(1 << 16)
        for part in ("pem", "key"):
            shutil.copy(secrets / f"new/127.0.0.1.{part}", secrets / f"mirror.{part}")
        found["reload"] = run("systemctl", "reload", MIRROR)[0]
        wait(lambda: serial() != before[1], 3)
        found["serial"] = serial() != before[1]
        found["pid"] = shown(MIRROR)["MainPID"] == before[0]
        found["reloaded"] = digest(answer, begun)
    with fetched("big.bin") as answer:
        begun = answer.read(1 << 16)
        began = time.monotonic()
        stop = subprocess.Popen(["systemctl", "stop", MIRROR])
        time.sleep(1)
        found["stopped"] = digest(answer, begun)
        found["stop"] = stop.wait(60)
        found["took"] = time.monotonic() - began
    found |= {"unit": shown(MIRROR), "group": group(MIRROR)}
    run("systemctl", "start", MIRROR)
    wait(lambda: get(f"{SITE}/healthz")[0], 20)
    return {**found, "renewed": serial() != before[1]}


@step
def mirror_serves_skypilot() -> Any:
    """What the API server is told of the mirror is enough to take a package from it."""
    main = shown(SERVER)["MainPID"]
    pairs = Path(f"/proc/{main}/environ").read_text().split("\0")
    env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    words = ("/opt/skypilot/bin/python", "-m", "pip", "download", "--no-deps", "-d", "/tmp/taken", "click")
    return {"env": env, "pip": run("runuser", "-u", "skypilot", "--", *words, env=env)}


if __name__ == "__main__":
    for each in (
        bootstrapped, credential_missing, mirror, credential_appears, installed, mirror_serves_skypilot,
        answers, credential_is_private, mirror_reloads, timers, monitor, people, killed, clock, cluster, stopped,
        down, slow, other_version, port_taken, ended,
    ):  # fmt: skip
        each()
    (OUT / "journal").write_text(run("journalctl", "-b", "--no-pager")[1])
