"""Servers under measurement: started, watched, ended; and the programs that ask them.

``wrk``, ``curl`` and the servers share the cores: for fast servers a rate is a lower bound, and the CPU that
a server used says more.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bench.lab import Lab
from bench.measure import BenchError

Argv: TypeAlias = Callable[[int], Sequence[str | Path]]
"""What starts a server at a port."""

_NGINX = """\
daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/nginx.err; events {{ worker_connections 2048; }}
http {{ access_log off; sendfile on; client_body_temp_path {0}/t; proxy_temp_path {0}/t; fastcgi_temp_path {0}/t;
  uwsgi_temp_path {0}/t; scgi_temp_path {0}/t; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{1}; root {2}; index index.html; }} }}
"""


@dataclass(frozen=True)
class Running:
    """A server that answers: its address, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    def at(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def cpu(self) -> float:
        """Seconds of CPU that its threads, and those of its children, have used; to the nanosecond."""
        used = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            # Ticks of 10 ms are a tenth of what five downloads cost; proc(5) tells nanoseconds elsewhere.
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if self.process.pid in {int(stat.parent.name), parent}:
                    tasks = stat.parent.glob("task/*/schedstat")
                    used += sum(int(task.read_text().split()[0]) for task in tasks)
        return used / 1e9

    def resident(self) -> int:
        """Bytes of memory that it has had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024


@contextlib.contextmanager
def running(lab: Lab, argv: Argv, path: str) -> Iterator[Running]:
    """A server at a free port, once it answers at ``path``; ended afterwards."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    told = lab.work / f"server-{port}.log"
    with told.open("wb") as log:
        words = [str(word) for word in argv(port)]
        process = subprocess.Popen(words, env=lab.environ(PYTHONPATH=lab.frozen), stdout=log, stderr=log)
    server = Running(port, process)
    try:
        for _ in range(1500):
            if process.poll() is not None:
                raise BenchError(f"{words[0]} ended: {told.read_text(errors='replace')[-2000:]}")
            with contextlib.suppress(OSError), urllib.request.urlopen(server.at(path)):
                break
            time.sleep(0.02)
        else:
            raise BenchError(f"{words[0]} does not answer at {path}")
        yield server
    finally:
        process.terminate()
        process.wait(40)


def ours(lab: Lab, store: Path) -> Argv:
    """Our server over a store."""
    words = ("--access-log", lab.work / "access.log", "--store", store)
    return lambda port: [sys.executable, "-m", "haversack", "serve", "--listen", f"127.0.0.1:{port}", *words]


def nginx(lab: Lab, root: Path) -> Argv:
    """nginx with one worker over a folder."""

    def argv(port: int) -> Sequence[str | Path]:
        folder = lab.work / "nginx"
        folder.mkdir(exist_ok=True)
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "conf").write_text(user + _NGINX.format(folder, port, root))
        return ["nginx", "-p", folder, "-c", folder / "conf"]

    return argv


def load(*words: str | Path, seconds: int = 3, connections: int = 16) -> float:
    """Requests a second that ``wrk`` gets answered, with one thread; ``words`` are its URL, or more."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", *words]
    return answered(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def answered(said: str) -> float:
    """The requests a second in what ``wrk`` printed.  Raises ``BenchError`` if any request went wrong."""
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", said, re.MULTILINE)
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise BenchError(said)
    return float(rate[1])


def download(url: str) -> float:
    """Bytes a second with which one ``curl`` gets a file."""
    argv = ["curl", "-sSf", "--noproxy", "*", "-o", os.devnull, "-w", "%{speed_download}", url]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
