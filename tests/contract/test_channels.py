from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.conda.channels import RattlerChannels
from haversack.errors import FetchError
from haversack.model.site import Credentials
from haversack.ports import Wish
from haversack.testing.channels import MemoryChannels
from haversack.testing.contracts.channels import GLIBC, ChannelsBench, ChannelsContract
from haversack.testing.contracts.refused import refused
from tests.support.channel import ChannelServer
from tests.support.conda import Package, make_conda, write_channel


def _first(folder: Path) -> list[Package]:
    return [
        make_conda(folder, "app", "1.0", depends=["lib >=1", "__glibc >=2.17"]),
        make_conda(folder, "lib", "1.0"),
        make_conda(folder, "lib", "1.1"),
        make_conda(folder, "gpu", "1.0", depends=["__cuda >=12"]),
    ]


def _second(folder: Path) -> list[Package]:
    return [make_conda(folder, "lib", "2.0"), make_conda(folder, "words", "1.0", noarch="generic")]


def _write(folder: Path) -> Path:
    write_channel(folder / "first", _first(folder / "first"), zst=True)
    write_channel(folder / "second", _second(folder / "second"))
    return folder


def _closed() -> str:
    """The address of a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/channel"


def _nobody(_: str) -> None:
    return None


class TestServedChannels(ChannelsContract):
    """Rattler over http on loopback."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[ChannelsBench]:
        """Two channels on one server."""
        folder = tmp_path
        with ChannelServer(_write(folder / "channels")) as server:
            channels = RattlerChannels(folder / "cache", _nobody, attempts=0, timeout=5)
            yield ChannelsBench(channels, f"{server.url}first", f"{server.url}second", _closed())


class TestFileChannels(ChannelsContract):
    """Rattler over folders."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> ChannelsBench:
        """Two channels in folders."""
        folder = tmp_path
        place = _write(folder / "channels").as_uri()
        channels = RattlerChannels(folder / "cache", _nobody, attempts=0, timeout=5)
        return ChannelsBench(channels, f"{place}/first", f"{place}/second", f"{place}/absent")


class TestMemoryChannels(ChannelsContract):
    """The twin."""

    @pytest.fixture
    def bench(self) -> ChannelsBench:
        """Two channels of records."""
        base = "https://conda.example.org"
        made = {"first": _first, "second": _second}
        with tempfile.TemporaryDirectory() as folder:
            channels = {
                f"{base}/{name}": [
                    {
                        **package.record,
                        "fn": package.filename,
                        "channel": f"{base}/{name}",
                        "url": f"{base}/{name}/{package.subdir}/{package.filename}",
                    }
                    for package in make(Path(folder) / name)
                ]
                for name, make in made.items()
            }
        return ChannelsBench(MemoryChannels(channels), f"{base}/first", f"{base}/second", f"{base}/absent")


def test_credentials_go_to_their_channel_alone(tmp_path: Path) -> None:
    """A channel with a password gets it, a channel without one on another server gets none, and errors are mute."""
    folder = _write(tmp_path / "channels")
    with (
        ChannelServer(folder, username="ada", password="hunter2") as closed,
        ChannelServer(folder) as open_,
    ):
        keys = {f"{closed.url}first": Credentials("ada", "hunter2")}
        channels = RattlerChannels(tmp_path / "cache", keys.get, attempts=0, timeout=5)
        wish = Wish((f"{closed.url}first", f"{open_.url}second"), "linux-64", ("app", "words"), (GLIBC,))
        assert len(channels.solve(wish)) == 3
        assert closed.asked("repodata")
        assert all(request.authorization is None for request in open_.requests)
        wrong = RattlerChannels(
            tmp_path / "other", lambda _: Credentials("ada", "letmein"), attempts=0, timeout=5
        )
        problem = refused(FetchError, lambda: wrong.solve(wish))
        assert "letmein" not in f"{problem} {problem.remedy} {problem.__cause__}"


def test_what_a_channel_said_is_asked_for_once(tmp_path: Path) -> None:
    """An unchanged channel answers the second question with 304, and a changed one is seen at once."""
    folder = _write(tmp_path / "channels")
    with ChannelServer(folder) as server:
        channels = RattlerChannels(tmp_path / "cache", _nobody, attempts=0, timeout=5)
        wish = Wish((f"{server.url}first",), "linux-64", ("lib",), ())
        assert [r["version"] for r in channels.solve(wish)] == ["1.1"]
        write_channel(
            folder / "first",
            [*_first(folder / "first"), make_conda(folder / "first", "lib", "1.2")],
            zst=True,
        )
        assert [r["version"] for r in channels.solve(wish)] == ["1.2"]


def test_the_machines_own_settings_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a mirror nor a login that the machine has for rattler or conda reaches a solve."""
    home = tmp_path / "home"
    (home / ".rattler").mkdir(parents=True)
    (home / ".rattler" / "credentials.json").write_text('{"127.0.0.1": {"BearerToken": "stolen"}}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(home / ".rattler" / "credentials.json"))
    with ChannelServer(_write(tmp_path / "channels")) as server:
        channels = RattlerChannels(tmp_path / "cache", _nobody, attempts=0, timeout=5)
        assert channels.solve(Wish((f"{server.url}first",), "linux-64", ("lib",), ()))
        assert all(request.authorization is None for request in server.requests)


@pytest.mark.parametrize("wrong", [503, "drop", "truncate"])
def test_a_channel_that_fails_in_the_middle_is_named(tmp_path: Path, wrong: int | str) -> None:
    """A channel that goes down between two of its files is one error that names it, whatever the failure."""
    with ChannelServer(_write(tmp_path / "channels")) as server:
        server.fail(r"noarch/repodata", wrong)  # type: ignore[arg-type]
        channels = RattlerChannels(tmp_path / "cache", _nobody, attempts=0, timeout=5)
        wish = Wish((f"{server.url}first",), "linux-64", ("lib",), ())
        problem = refused(FetchError, lambda: channels.solve(wish))
        assert f"{server.url}first" in str(problem)
        assert "\n" not in problem.message


def test_packages_that_are_too_new_are_not_seen(tmp_path: Path) -> None:
    """A day as the bound ends that day in UTC; a moment is that moment."""
    first = tmp_path / "channel"
    day = 1_767_225_600_000  # 2026-01-01T00:00:00Z
    made = [
        make_conda(first, "lib", f"1.{hour}", timestamp=day + hour * 3_600_000)
        for hour in (0, 12, 23, 24, 30)
    ]
    write_channel(first, made)
    channels = RattlerChannels(tmp_path / "cache", _nobody)
    found = {}
    for bound in ("2026-01-01", "2026-01-01T12:00:00Z", "2026-01-01T14:00:00+02:00", "2026-01-02"):
        wish = Wish((first.as_uri(),), "linux-64", ("lib",), (), exclude_newer=bound)
        (record,) = channels.solve(wish)
        found[bound] = record["version"]
    assert found == {
        "2026-01-01": "1.24",
        "2026-01-01T12:00:00Z": "1.12",
        "2026-01-01T14:00:00+02:00": "1.12",
        "2026-01-02": "1.30",
    }
