"""``python -m bench``: it runs, both sides really run in it, and its verdicts are those of the numbers.

No time is held to anything here: a test that fails on a busy machine proves nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bench import stock
from bench.daemons import answered, nginx, ours, running
from bench.lab import Lab, folder_bytes
from bench.measure import BenchError, Row, pairs, table, timed

_ROOT = Path(__file__).parents[1]


def test_a_tiny_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    """One command packs a made-up bundle, measures haversack and its peer on it, and leaves nothing behind."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--only",
            "verify",
            "--runs",
            "1",
            "--size",
            "4",
            "--json",
            "--scratch",
            tmp_path,
        ],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    # 1 says that a promise was missed, as it may be on four mebibytes.
    assert done.returncode in (0, 1), done.stderr
    (row,) = json.loads(done.stdout)
    assert row["name"] == "verify 4 MiB in 109 files"
    assert row["ours"][0] > 0
    assert row["peer"][0] > 0
    assert row["ratios"] == [row["ours"][0] / row["peer"][0]]
    assert row["met"] is (row["ratios"][0] >= 0.9) is (done.returncode == 0)
    assert not list(tmp_path.iterdir())


def test_a_promise_is_judged_by_the_median_of_the_ratios() -> None:
    """A slow moment that hits both sides of a pair, or one pair of three, does not change the verdict."""
    held = Row("x", "s", (1.0, 100.0, 9.0), (1.0, 100.0, 1.0), "peer", 1.1)
    assert held.ratios == (1.0, 1.0, 9.0)
    assert held.met is True
    assert Row("x", "s", (2.0, 2.0, 1.0), (1.0, 1.0, 1.0), "peer", 1.1).met is False
    assert Row("x", "MB/s", (2.0,), (2.5,), "peer", 0.8, floor=True).met is True
    assert Row("x", "MB/s", (2.0,), (2.6,), "peer", 0.8, floor=True).met is False


def test_a_promise_without_a_peer_is_judged_by_the_value() -> None:
    """What is promised in seconds or bytes is compared as it is; without a promise there is no verdict."""
    assert Row("x", "s", (1.0, 2.0, 9.0), limit=2).met is True
    assert Row("x", "s", (1.0, 2.1, 9.0), limit=2).met is False
    assert Row("x", "s", (1.0,)).met is None


def test_the_table_says_what_is_not_met() -> None:
    """A missed promise stands out, and every row has as many cells as the head."""
    lines = table(
        [Row("slow", "s", (3.0,), (1.0,), "peer", 1.1), Row("good", "s", (1.0,), limit=2)]
    ).splitlines()
    assert "| NO " in lines[2]
    assert "| yes" in lines[3]
    assert {line.count("|") for line in lines} == {8}


def test_both_sides_take_turns() -> None:
    """Ours and the peer run alternately, so that a busy minute falls on both."""
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert pairs(lambda: side("ours"), lambda: side("peer"), 2) == ((1.0, 3.0), (2.0, 4.0))
    assert order == ["ours", "peer", "ours", "peer"]


def test_a_program_that_fails_is_not_a_fast_one() -> None:
    """The time of a program that exited with an error is thrown away, and its last words are told."""
    with pytest.raises(BenchError, match=r"(?s)exited with 3: .*no luck"):
        timed([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], env=os.environ)


_PEAKS = """
import os, sys
from bench.measure import timed
for words in ("x = b'x' * (300 << 20)", "pass"):
    print(timed([sys.executable, "-c", words], env=os.environ).peak)
"""


def test_memory_is_that_of_one_program() -> None:
    """The peak of a large program is seen, and is not that of the next, small one."""
    # From a process of its own: Linux counts what a program's parent had when it started it.
    done = subprocess.run(
        [sys.executable, "-c", _PEAKS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    large, small = map(int, done.stdout.split())
    assert large > 300 << 20
    assert small < 300 << 20


def test_a_file_of_two_names_takes_disk_once(tmp_path: Path) -> None:
    """Disk use is counted as du counts it: a hard link adds nothing."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").write_bytes(os.urandom(1 << 20))
    before = folder_bytes(tmp_path / "one")
    (tmp_path / "two" / "file").hardlink_to(tmp_path / "one" / "file")
    assert before >= 1 << 20
    assert folder_bytes(tmp_path / "one", tmp_path / "two") == before


def test_servers_under_measurement_give_the_same_and_end(tmp_path: Path) -> None:
    """Ours and nginx give the wheel byte by byte, tell the CPU that it cost them, and are gone afterwards."""
    lab = Lab(tmp_path, tmp_path, 1, 1)
    path = stock.wheel(tmp_path / "wheels", "demo", "1.0", 10_000)
    stock.wheels_in(tmp_path / "store", [path])
    sides = (
        (ours(lab, tmp_path / "store"), stock.place(path)),
        (nginx(lab, tmp_path / "wheels"), f"/{path.name}"),
    )
    for argv, place in sides:
        with running(lab, argv, place) as server:
            with urllib.request.urlopen(server.at(place)) as answer:
                assert answer.read() == path.read_bytes()
            assert server.cpu() > 0
            assert server.resident() > 1 << 20
            assert server.process.poll() is None
        assert server.process.poll() is not None


def test_the_server_has_the_image_that_is_pulled(tmp_path: Path) -> None:
    """The image of the bench is served under its tag with every layer of it."""
    lab = Lab(tmp_path, tmp_path, 1, 1)
    stock.image(tmp_path / "layout", "big", 2, 1000)
    stock.image_in(tmp_path / "store", tmp_path / "layout", "registry.example.org/team/big:1")
    name = "/v2/registry.example.org/team/big"
    with running(lab, ours(lab, tmp_path / "store"), "/v2/") as server:
        with urllib.request.urlopen(server.at(f"{name}/manifests/1")) as answer:
            manifest = json.load(answer)
        assert [layer["size"] for layer in manifest["layers"]] == [1000, 1000]
        for part in (manifest["config"], *manifest["layers"]):
            with urllib.request.urlopen(server.at(f"{name}/blobs/{part['digest']}")) as answer:
                assert len(answer.read()) == part["size"]


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    """A server that ends before it answers ends the bench, with what it said."""
    argv = [sys.executable, "-c", "import sys; sys.exit('no port')"]
    with (
        pytest.raises(BenchError, match=r"(?s)ended: .*no port"),
        running(Lab(tmp_path, tmp_path, 1, 1), lambda _: argv, "/"),
    ):
        pass


def test_a_rate_counts_only_where_every_request_was_answered() -> None:
    """What wrk prints is a rate; one with errors in it is none."""
    assert answered("  12 requests in 3.00s\nRequests/sec:      4.25\nTransfer/sec: 1MB\n") == 4.25
    for wrong in ("Non-2xx or 3xx responses: 1", "Socket errors: connect 0, read 1, write 0, timeout 0"):
        with pytest.raises(BenchError):
            answered(f"  {wrong}\nRequests/sec:      4.25\n")
    with pytest.raises(BenchError):
        answered("unable to connect")
