from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rattler import Config

from haversack.conda.channels import RattlerChannels
from haversack.errors import FetchError, ResolutionError
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


def _one_url(record: Mapping[str, Any]) -> str:
    return str(record["url"])


def test_credentials_go_to_their_channel_alone(tmp_path: Path) -> None:
    """Two servers of one host with the same path: one has a password and gets it, the other never sees it."""
    folder = _write(tmp_path / "channels")
    with (
        ChannelServer(folder, username="ada", password="hunter2") as closed,
        ChannelServer(folder) as open_,
    ):
        mine, other = f"{closed.url}first", f"{open_.url}first"
        channels = RattlerChannels(
            tmp_path / "cache", {mine: Credentials("ada", "hunter2")}.get, attempts=0, timeout=5
        )
        for urls in ((mine, other), (other, mine)):
            wish = Wish(urls, "linux-64", ("app",), (GLIBC,))
            assert [_one_url(record).rpartition("/linux-64/")[0] for record in channels.solve(wish)] == [
                urls[0],
                urls[0],
            ]
            both = channels.records(urls, ["linux-64"], ["app"])
            assert sorted(map(_one_url, both)) == sorted(f"{url}/linux-64/app-1.0-0.conda" for url in urls)
        assert open_.asked("repodata")
        assert all(request.authorization is None for request in open_.requests)
        assert closed.asked("repodata")
        assert all(closed.admits(request) for request in closed.requests)


def test_each_channel_gets_its_own_credentials(tmp_path: Path) -> None:
    """Two servers of one host with the same path and other passwords: neither sees the other's."""
    folder = _write(tmp_path / "channels")
    with (
        ChannelServer(folder, username="ada", password="hunter2") as one,
        ChannelServer(folder, username="bob", password="sesame") as two,
    ):
        keys = {f"{one.url}first": Credentials("ada", "hunter2")}
        keys[f"{two.url}first"] = Credentials("bob", "sesame")
        channels = RattlerChannels(tmp_path / "cache", keys.get, attempts=0, timeout=5)
        assert len(channels.solve(Wish(tuple(keys), "linux-64", ("app",), (GLIBC,)))) == 2
        for server in (one, two):
            assert server.asked("repodata")
            assert all(server.admits(request) for request in server.requests)


def test_a_wrong_password_is_told_and_not_repeated(tmp_path: Path) -> None:
    """One channel or two, the error names them and nothing of the login."""
    folder = _write(tmp_path / "channels")
    with (
        ChannelServer(folder, username="ada", password="hunter2") as closed,
        ChannelServer(folder) as open_,
    ):
        mine, other = f"{closed.url}first", f"{open_.url}second"
        wrong = RattlerChannels(
            tmp_path / "cache", {mine: Credentials("ada", "letmein")}.get, attempts=0, timeout=5
        )
        for urls in ((mine,), (mine, other), (other, mine)):
            wish = Wish(urls, "linux-64", ("app", "words"), (GLIBC,))
            problem = refused(FetchError, lambda: wrong.solve(wish))  # noqa: B023
            assert mine in str(problem)
            assert "401" in problem.message
            assert "letmein" not in f"{problem} {problem.remedy} {problem.__cause__}"


@pytest.mark.parametrize("spec", ["numpy >>> 3", "numpy=[[", "*", ""])
def test_what_is_no_specification_is_refused_by_name(tmp_path: Path, spec: str) -> None:
    """A reason in our words, as for what cannot be solved."""
    channels = RattlerChannels(tmp_path / "cache", _nobody)
    wish = Wish((_write(tmp_path).as_uri() + "/first",), "linux-64", (spec,), ())
    assert repr(spec) in refused(ResolutionError, lambda: channels.solve(wish)).message


def test_what_is_no_address_is_refused_by_name(tmp_path: Path) -> None:
    """A port that there cannot be, for a solve and for records."""
    channels, url = RattlerChannels(tmp_path / "cache", _nobody), "https://conda.example.org:99999/main"
    wish = Wish((url,), "linux-64", ("lib",), ())
    assert url in str(refused(FetchError, lambda: channels.solve(wish)))
    assert url in str(refused(FetchError, lambda: channels.records([url], ["noarch"], ["lib"])))


def test_a_channel_that_names_another_is_asked_alone(tmp_path: Path) -> None:
    """Only channels that people wrote down are asked, whatever one says of its relations (CEP 42)."""
    folder = _write(tmp_path / "channels")
    for path in folder.glob("first/*/repodata.json"):
        told = json.loads(path.read_bytes())
        told["info"]["channel_relations"] = {"base": "../second"}
        path.write_text(json.dumps(told))
        path.with_name("repodata.json.zst").unlink()
    with ChannelServer(folder, username="ada", password="hunter2") as server, ChannelServer(folder) as other:
        first, second = f"{server.url}first", f"{other.url}second"
        keys = {first: Credentials("ada", "hunter2")}
        channels = RattlerChannels(tmp_path / "cache", keys.get, attempts=0, timeout=5)
        found = channels.records([first], ["linux-64", "noarch"], ["lib", "words"])
        assert [record["version"] for record in found] == ["1.0", "1.1"]
        for urls in ((first,), (first, second)):
            assert channels.solve(Wish(urls, "linux-64", ("app",), (GLIBC,)))
        assert not server.asked("second")


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
    """Neither a mirror, nor a login, nor a virtual package that the machine has for rattler or conda reaches a solve."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(home / ".rattler" / "credentials.json"))
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    with ChannelServer(_write(tmp_path / "channels")) as server, ChannelServer(tmp_path) as mirror:
        monkeypatch.setenv("CONDA_CHANNEL_ALIAS", mirror.url)
        mirrors = f'[mirrors]\n"{server.url}" = ["{mirror.url}channels/"]\n'
        for path, text in {
            ".rattler/credentials.json": '{"127.0.0.1": {"BearerToken": "stolen"}}',
            ".config/rattler/config.toml": mirrors,
            ".config/pixi/config.toml": mirrors,
            ".condarc": f"channel_alias: {mirror.url}\n",
            ".netrc": "machine 127.0.0.1 login ada password stolen\n",
        }.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text)
        # What rattler would do of itself, were it asked to.
        assert Config.load_from_default_locations("rattler").mirrors == {
            server.url: [f"{mirror.url}channels/"]
        }
        channels = RattlerChannels(tmp_path / "cache", _nobody, attempts=0, timeout=5)
        assert channels.solve(Wish((f"{server.url}first",), "linux-64", ("lib",), ()))
        assert channels.records([f"{server.url}first"], ["linux-64"], ["lib"])
        wish = Wish((f"{server.url}first",), "linux-64", ("gpu",), ())
        assert "__cuda" in refused(ResolutionError, lambda: channels.solve(wish)).message
        assert server.asked("repodata")
        assert all(request.authorization is None for request in server.requests)
        assert mirror.requests == []


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
