"""An index page of 300 links, asked from our server and from those that people use today.

Each peer takes turns with ours: one worker, the page of one project, 16 connections.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from bench import stock
from bench.daemons import Argv, Running, load, nginx, ours, running
from bench.lab import Lab
from bench.measure import BenchError, Row, timed

_LINKS, _SECONDS = 300, 3
_PEERS = ("devpi-server==6.20.3", "pypiserver==2.4.2", "simple-repository-server==0.10.0")
_OURS, _THEIRS = "/pypi/simple/demo/", "/simple/demo/"


@dataclass(frozen=True)
class _Peer:
    """A server beside ours: where it has the page, and how many times its rate was promised."""

    name: str
    argv: Argv
    path: str
    limit: float


def index_page(lab: Lab) -> Iterator[Row]:
    """Requests a second, and CPU a request, beside each peer."""
    folder = lab.work / "page"
    wheels = [stock.wheel(folder / "wheels/demo", "demo", f"1.{number}") for number in range(_LINKS)]
    stock.wheels_in(folder / "store", wheels)
    with running(lab, ours(lab, folder / "store"), _OURS) as server:
        page = folder / "static/simple/demo/index.html"
        page.parent.mkdir(parents=True)
        page.write_bytes(_page(server, _OURS))
        for peer in _peers(lab, folder, wheels):
            yield from _beside(lab, server, peer)


def _peers(lab: Lab, folder: Path, wheels: list[Path]) -> Iterator[_Peer]:
    peers = lab.scratch / "serving-peers"
    _install(lab, peers)
    programs = peers / "bin"
    indexes = folder / "wheels"
    yield _Peer("nginx", nginx(lab, folder / "static"), _THEIRS, 1 / 4)
    _import(lab, programs, folder, wheels)
    words = (programs / "devpi-server", "--serverdir", folder / "devpi", "--host", "127.0.0.1")
    yield _Peer("devpi-server", lambda port: [*words, "--port", str(port)], "/root/dev/+simple/demo/", 50)
    yield _Peer(
        "pypiserver",
        lambda port: [programs / "pypi-server", "run", "-i", "127.0.0.1", "-p", str(port), indexes],
        _THEIRS,
        50,
    )
    yield _Peer(
        "simple-repository-server",
        lambda port: [
            programs / _PEERS[2].split("==")[0],
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            indexes,
        ],
        _THEIRS,
        50,
    )


def _install(lab: Lab, peers: Path) -> None:
    """The peers in an environment of their own, kept from run to run."""
    python = peers / "bin/python"
    if not python.exists():
        timed([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, peers], env=lab.environ())
    timed([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *_PEERS], env=lab.environ())


def _import(lab: Lab, programs: Path, folder: Path, wheels: list[Path]) -> None:
    """The wheels in an index of devpi that has no other below it, in the form that devpi-export writes."""
    versions = {path.name.split("-")[1]: path for path in wheels}
    when = "Sat, 21 Nov 2026 00:00:00 GMT"
    index = {
        "indexconfig": {"type": "stage", "bases": [], "volatile": True},
        "projects": {"demo": {version: {"name": "demo", "version": version} for version in versions}},
        "files": [
            {
                "type": "releasefile",
                "projectname": "demo",
                "version": version,
                "relpath": path.name,
                "entrymapping": {"last_modified": when},
            }
            for version, path in versions.items()
        ],
    }
    data = {"dumpversion": "2", "users": {"root": {"username": "root"}}, "indexes": {"root/dev": index}}
    told = folder / "wheels/demo/dataindex.json"
    told.write_text(json.dumps(data))
    words = (programs / "devpi-import", "--serverdir", folder / "devpi", "--no-root-pypi", "--no-events")
    try:
        timed([*words, told.parent], env=lab.environ())
    finally:
        told.unlink()


def _beside(lab: Lab, server: Running, peer: _Peer) -> Iterator[Row]:
    sides = [(server, _OURS)]
    with running(lab, peer.argv, peer.path) as other:
        sides.append((other, peer.path))
        for one, path in sides:
            if (links := _page(one, path).count(b"<a ")) != _LINKS:
                raise BenchError(f"the page at {path} of {peer.name} has {links} links")
        rates: list[list[float]] = [[], []]
        costs: list[list[float]] = [[], []]
        for _ in range(lab.runs):
            for number, (one, path) in enumerate(sides):
                before = one.cpu()
                rates[number].append(load(one.at(path), seconds=_SECONDS))
                costs[number].append((one.cpu() - before) * 1e6 / (rates[number][-1] * _SECONDS))
    name = f"index page of {_LINKS} links"
    yield Row(name, "/s", tuple(rates[0]), tuple(rates[1]), peer.name, peer.limit, floor=True)
    yield Row("CPU for it", "us", tuple(costs[0]), tuple(costs[1]), peer.name)


def _page(server: Running, path: str) -> bytes:
    with urllib.request.urlopen(server.at(path)) as answer:
        found: bytes = answer.read()
    return found
