"""The live server with large files, with many artifacts and with many clients, beside nginx."""

from __future__ import annotations

import os
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from uv import find_uv_bin

from bench import scale, stock
from bench.daemons import Running, download, load, nginx, ours, running
from bench.indexes import index_page
from bench.lab import Lab, discard
from bench.measure import MIB, Row, timed
from bench.pulling import pull

_LARGE, _CLIENTS, _WHEELS, _WHEEL = 200 * MIB, 64, 100, 300_000
_DOWNLOADS = 5


def served(lab: Lab) -> Iterator[Row]:
    """Every row about the live server."""
    yield from index_page(lab)
    yield from large_file(lab)
    yield from pull(lab)
    yield from start(lab)
    yield from many_clients(lab)


def large_file(lab: Lab) -> Iterator[Row]:
    """One wheel of 200 MB: its rate, and the CPU it costs; three times as many pairs, for they are short."""
    folder = lab.work / "file"
    path = stock.wheel(folder / "wheels", "large", "1.0", _LARGE)
    stock.wheels_in(folder / "store", [path])
    ask = stock.place(path)
    with (
        running(lab, ours(lab, folder / "store"), ask) as server,
        running(lab, nginx(lab, folder / "wheels"), f"/{path.name}") as peer,
    ):
        sides = ((server, ask), (peer, f"/{path.name}"))
        # Once, or ours would hash while it sends.
        for one, name in sides:
            download(one.at(name))
        rates: tuple[list[float], list[float]] = ([], [])
        costs: tuple[list[float], list[float]] = ([], [])
        gigabytes = _DOWNLOADS * path.stat().st_size / 1e9
        for _ in range(3 * lab.runs):
            for number, (one, name) in enumerate(sides):
                before = one.cpu()
                speeds = [download(one.at(name)) for _ in range(_DOWNLOADS)]
                rates[number].append(statistics.median(speeds) / 1e9)
                costs[number].append((one.cpu() - before) / gigabytes)
    discard(folder)
    against = "nginx, sendfile"
    yield Row("one 200 MB wheel", "GB/s", tuple(rates[0]), tuple(rates[1]), against, 0.9, floor=True)
    yield Row("CPU for it", "s/GB", tuple(costs[0]), tuple(costs[1]), against, 1.5)


def start(lab: Lab) -> Iterator[Row]:
    """From nothing to the first answer of a store with 20,000 artifacts."""
    folder = lab.work / "many"
    scale.build(folder, 20_000)
    ready, costs, first, peaks = [], [], [], []
    for _ in range(lab.runs):
        begun = time.perf_counter()
        with running(lab, ours(lab, folder / "store"), "/v2/") as server:
            ready.append(time.perf_counter() - begun)
            costs.append(server.cpu())
            urllib.request.urlopen(server.at("/pypi/simple/")).read()
            first.append(time.perf_counter() - begun)
            peaks.append(server.resident() / MIB)
    discard(folder)
    yield Row("start with 20,000 artifacts", "s", tuple(ready), limit=1.0)
    yield Row("CPU for it", "s", tuple(costs))
    yield Row("and its first index page", "s", tuple(first))
    yield Row("memory with them", "MiB", tuple(peaks), limit=200)


def many_clients(lab: Lab) -> Iterator[Row]:
    """64 clients at once, each with the same 100 wheels: installers beside nginx, ``curl`` beside ``wrk``."""
    folder = lab.work / "clients"
    wheels = [stock.wheel(folder / "wheels", f"part{number}", "1.0", _WHEEL) for number in range(_WHEELS)]
    stock.wheels_in(folder / "store", wheels)
    lab.haversack("serve", "--export", folder / "site", store=folder / "store")
    names = [path.name.split("-")[0] for path in wheels]
    (folder / "wanted").write_text("".join(f"{name}==1.0\n" for name in names))
    places = [f"/pypi/simple/{name}/" for name in names] + [stock.place(path) for path in wheels]
    with (
        running(lab, ours(lab, folder / "store"), places[0]) as server,
        running(lab, nginx(lab, folder / "site"), places[0]) as peer,
    ):
        yield from _installed(lab, folder, server, peer)
        yield from _fetched(lab, folder, server, peer, places)
    discard(folder)


def _installed(lab: Lab, folder: Path, server: Running, peer: Running) -> Iterator[Row]:
    """uv in an empty folder in memory and with no cache, as on 64 nodes; a failed one ends the bench."""

    uv = find_uv_bin()

    def client(memory: Path, one: Running, number: int) -> None:
        place = memory / f"target-{number}"
        words = ("pip", "install", "--quiet", "--no-cache", "--python", sys.executable, "--target", place)
        index = ("--default-index", one.at("/pypi/simple/"), "--requirements", folder / "wanted")
        timed([uv, *words, *index], env=lab.environ(TMPDIR=memory))
        discard(place)

    rates: dict[int, list[float]] = {server.port: [], peer.port: []}
    costs: dict[int, list[float]] = {server.port: [], peer.port: []}
    for _ in range((lab.runs + 1) // 2):
        for one in (server, peer):
            before = one.cpu()
            with lab.in_memory(2 * _CLIENTS * _WHEELS * _WHEEL) as memory:
                rates[one.port].append(_together(partial(client, memory, one), _CLIENTS))
            costs[one.port].append((one.cpu() - before) * 1e3 / (_CLIENTS * _WHEELS))
    name = f"{_CLIENTS} installers at once, {_WHEELS} wheels each"
    both = tuple(rates[server.port]), tuple(rates[peer.port])
    yield Row(name, "wheels/s", *both, "the same from nginx over the export", 0.8, floor=True)
    both = tuple(costs[server.port]), tuple(costs[peer.port])
    yield Row("CPU for it", "ms/wheel", *both, "nginx")


def _fetched(lab: Lab, folder: Path, server: Running, peer: Running, places: list[str]) -> Iterator[Row]:
    """Page and file of every wheel by ``curl``, which installs nothing: how far the server is from its limit.

    That is told by nginx with the same clients, and by one client that looks at nothing.
    """
    configs = {one.port: folder / f"curl-{one.port}" for one in (server, peer)}
    for one in (server, peer):
        wanted = (f'url = "{one.at(place)}"\noutput = "{os.devnull}"\n' for place in places)
        configs[one.port].write_text("".join(wanted))
    script = folder / "mix.lua"
    listed = ", ".join(f'"{place}"' for place in places)
    script.write_text(
        f"local places, at = {{{listed}}}, 0\n"
        "request = function()\n  at = at % #places + 1\n  return wrk.format('GET', places[at])\nend\n"
    )

    def client(one: Running, _: int) -> None:
        timed(["curl", "-sSf", "--noproxy", "*", "-K", configs[one.port]], env=lab.environ())

    many, limit, alone, most = [], [], [], []
    for _ in range(lab.runs):
        many.append(_together(partial(client, server), _CLIENTS))
        limit.append(_together(partial(client, peer), _CLIENTS))
        alone.append(_together(partial(client, server), 1, _CLIENTS // 8))
        most.append(load("-s", script, server.at(""), connections=_CLIENTS) / 2)
    name = f"{_CLIENTS} times curl, {_WHEELS} wheels each"
    against = "the same from nginx over the export"
    yield Row(name, "wheels/s", tuple(many), tuple(limit), against)
    yield Row(name, "wheels/s", tuple(many), tuple(most), "wrk, the same pages and files, from our server")
    yield Row(name, "wheels/s", tuple(many), tuple(alone), "one curl after the other")


def _together(client: Callable[[int], None], at_once: int, count: int = 0) -> float:
    """The wheels a second of ``count`` clients (or ``at_once``), so many of them at a time."""
    count = count or at_once
    begun = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(client, range(count)))
    return count * _WHEELS / (time.perf_counter() - begun)
