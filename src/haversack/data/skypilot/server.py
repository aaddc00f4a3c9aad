"""SkyPilot's API server in the foreground.

``server.py --host H --port P [--metrics-port N] [--catalogs DIR] [--logs DIR]`` becomes
``python -m sky.server.server``, which has had the first three options since 0.10.0.  That is what
``sky api start --foreground`` ends in too, which has no option for the metrics' port, none for the port before 0.14,
says that all is well where another server has the port already, and does not start at all where clients are kept
from starting one (``SKYPILOT_DISABLE_LOCAL_API_SERVER``).

``--catalogs`` are tables (``v8/aws/vms.csv``) that are put into ``~/.sky/catalogs`` first, so that none is fetched.
``--logs`` is where logs of requests are written; they stay in ``~/.sky`` while that cannot be written to.

A clean stop is SIGTERM to this process alone: ``KillMode=mixed``.  Exit codes before it begins: 1 a port is taken;
2 bad usage, or a SkyPilot that is too old; 3 the catalogs cannot be put in place.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::")  # noqa: S104 - what may be asked for
"""What SkyPilot binds to (sky/server/common.py); those of IPv6 since 0.14."""


def options(folder: Path) -> str:
    """The text of the program that SkyPilot's server is; empty where there is none."""
    try:
        return (folder / "server" / "server.py").read_text(encoding="utf-8")
    except OSError:
        return ""


def taken(host: str, port: int) -> str | None:
    """Why a port cannot be listened at, or None."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as test:
            test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            test.bind(address)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            return f"Port {port} of {host} is taken."
        return f"Port {port} of {host} cannot be listened at: {problem.strerror}."
    return None


def environment(port: int, measured: bool) -> dict[str, str]:
    """What ``sky api start`` sets for its server (sky/server/common.py, ``_start_api_server``), and where it runs.

    The programs beside this Python come first in PATH: the server runs ``aws`` and ``rsync`` by name.
    """
    folder = str(Path(sys.executable).parent)
    told = {
        "IS_SKYPILOT_SERVER": "true",
        "SKYPILOT_API_SERVER_LOCAL_PORT": str(port),
        "PATH": os.pathsep.join(filter(None, (folder, os.environ.get("PATH", "")))),
    }
    if measured:
        # A new one: files of processes that are gone would be counted again.
        metrics = tempfile.mkdtemp(prefix="skypilot-metrics-")
        told |= {"SKY_API_SERVER_METRICS_ENABLED": "true", "PROMETHEUS_MULTIPROC_DIR": metrics}
    return told


def seed(source: Path, home: Path) -> None:
    """Put catalogs where SkyPilot looks for them, without the digests by which it would fetch them anew.

    A table with no ``.meta/….md5`` beside it counts as the site's own (sky/catalog/common.py).  Raises ``OSError``.
    """
    files = sorted(path for path in source.rglob("*.csv") if path.is_file())
    if not files:
        raise FileNotFoundError(errno.ENOENT, "no catalog is there", str(source))
    for file in files:
        version, *rest = file.relative_to(source).parts
        target = home.joinpath(version, *rest)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.new")
        aside.write_bytes(file.read_bytes())
        aside.replace(target)
        home.joinpath(version, ".meta", *rest[:-1], f"{target.name}.md5").unlink(missing_ok=True)


def lodge(logs: Path, home: Path) -> None:
    """Let SkyPilot write logs of requests to ``logs``: it has no option for that, and goes by a link.

    Those that lie in its own folder go, as at each of its starts (sky/server/requests/requests.py,
    ``reset_db_and_logs``).  Raises ``OSError`` where nothing can be written, as on a full disk, on which each request
    would fail; there is no link then.
    """
    link = home / ".sky" / "api_server" / "request_logs"
    if link.is_symlink():
        link.unlink()
    else:
        shutil.rmtree(link, ignore_errors=True)
    logs.mkdir(mode=0o750, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=logs) as trial:
        trial.write(bytes(1 << 16))
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    link.symlink_to(logs)


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65_536:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return number


def main(arguments: Sequence[str]) -> int:
    """Become the server.  Gives an exit code where that cannot be."""
    parser = argparse.ArgumentParser(prog="server.py", description="SkyPilot's API server in the foreground.")
    parser.add_argument("--host", choices=HOSTS, required=True)
    parser.add_argument("--port", type=_port, required=True)
    parser.add_argument("--metrics-port", type=_port)
    parser.add_argument("--catalogs", type=Path, metavar="DIR")
    parser.add_argument("--logs", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    if given.port == given.metrics_port:
        parser.error("the metrics want a port of their own")
    found = importlib.util.find_spec("sky")
    folder = Path(found.origin).parent if found is not None and found.origin else Path()
    text = options(folder)
    if not text:
        sys.stderr.write(f"{sys.executable} has no SkyPilot with an API server: 0.10.0 or newer is needed.\n")
        return 2
    argv = [sys.executable, "-m", "sky.server.server", f"--host={given.host}", f"--port={given.port}"]
    measured = given.metrics_port is not None
    if measured and "--metrics-port" not in text:
        sys.stderr.write("This SkyPilot has no metrics (0.10.0 has them first): the server starts without.\n")
        measured = False
    if measured:
        argv.append(f"--metrics-port={given.metrics_port}")
    elif "--metrics-port" in text and given.port == 9090:
        # Its default, which it compares with its port though nothing listens there.
        argv.append("--metrics-port=9091")
    for port in filter(None, (given.port, given.metrics_port)):
        if problem := taken(given.host, port):
            sys.stderr.write(f"{problem}\n")
            return 1
    if given.catalogs is not None:
        try:
            seed(given.catalogs, Path.home() / ".sky" / "catalogs")
        except OSError as problem:
            sys.stderr.write(
                f"The catalogs cannot be put in place: {problem.filename}: {problem.strerror}.\n"
            )
            return 3
    if given.logs is not None:
        try:
            lodge(given.logs, Path.home())
        except OSError as problem:
            sys.stderr.write(
                f"Logs of requests stay in {Path.home()}/.sky: {given.logs}: {problem.strerror}.\n"
            )
    os.environ.update(environment(given.port, measured))
    if not measured:
        os.environ.pop("SKY_API_SERVER_METRICS_ENABLED", None)
    return os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
