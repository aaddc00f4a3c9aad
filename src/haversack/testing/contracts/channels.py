"""What :class:`haversack.ports.Channels` promises."""

from __future__ import annotations

from dataclasses import dataclass, replace

from haversack.errors import FetchError, ResolutionError
from haversack.model.target import VirtualPackage
from haversack.ports import Channels, Wish
from haversack.testing.contracts.refused import refused

GLIBC = VirtualPackage("__glibc", "2.28", "0")


@dataclass(frozen=True, slots=True)
class ChannelsBench:
    """Channels under test.

    ``first`` has ``app`` 1.0, which needs ``lib >=1`` and ``__glibc >=2.17``, ``lib`` 1.0 and 1.1, and
    ``gpu`` 1.0, which needs ``__cuda >=12``; ``second`` has ``lib`` 2.0 and, for ``noarch``, ``words`` 1.0.
    All others are for ``linux-64``.  ``absent`` does not answer.
    """

    channels: Channels
    first: str
    second: str
    absent: str


def _wish(bench: ChannelsBench, *specs: str) -> Wish:
    return Wish((bench.first, bench.second), "linux-64", specs, (GLIBC,))


def _versions(bench: ChannelsBench, wish: Wish) -> dict[str, str]:
    return {record["name"]: record["version"] for record in bench.channels.solve(wish)}


class ChannelsContract:
    """Tests of channels; they take a fixture ``bench`` (a :class:`ChannelsBench`)."""

    def test_a_wish_is_answered_with_whole_records(self, bench: ChannelsBench) -> None:
        """Records say name, file, URL, channel and digest, and come in the order of their names."""
        found = bench.channels.solve(_wish(bench, "app", "words"))
        assert [record["name"] for record in found] == ["app", "lib", "words"]
        for record in found:
            assert record["url"].endswith(f"/{record['subdir']}/{record['fn']}")
            assert record["url"].startswith(record["channel"])
            assert len(record["sha256"]) == 64

    def test_the_first_channel_hides_the_others(self, bench: ChannelsBench) -> None:
        """A package comes from the first channel that has it, or the newest from any where that is wished."""
        wish = _wish(bench, "app")
        assert _versions(bench, wish)["lib"] == "1.1"
        assert _versions(bench, replace(wish, strict=False))["lib"] == "2.0"

    def test_what_was_held_is_kept(self, bench: ChannelsBench) -> None:
        """A held record stays where the wish allows it, and gives way where it does not."""
        (old,) = [
            r for r in bench.channels.records([bench.first], ["linux-64"], ["lib"]) if r["version"] == "1.0"
        ]
        wish = replace(_wish(bench, "app"), held=(old,))
        assert _versions(bench, wish)["lib"] == "1.0"
        assert _versions(bench, replace(wish, specs=("app", "lib >=1.1")))["lib"] == "1.1"

    def test_the_machine_is_that_of_the_wish(self, bench: ChannelsBench) -> None:
        """Only the virtual packages of the wish are there, and a refusal names the one that is missing."""
        problem = refused(ResolutionError, lambda: bench.channels.solve(_wish(bench, "gpu")))
        assert "__cuda" in problem.message
        cuda = VirtualPackage("__cuda", "12.4", "0")
        wish = replace(_wish(bench, "gpu"), virtual_packages=(GLIBC, cuda))
        assert _versions(bench, wish) == {"gpu": "1.0"}

    def test_records_are_told_by_name(self, bench: ChannelsBench) -> None:
        """Every version of a name, of the channels and subdirs asked for and of no other."""
        found = bench.channels.records([bench.first], ["linux-64", "noarch"], ["lib", "words"])
        assert sorted(record["version"] for record in found) == ["1.0", "1.1"]
        assert bench.channels.records([bench.second], ["noarch"], ["nothing"]) == ()

    def test_a_channel_that_does_not_answer_is_named(self, bench: ChannelsBench) -> None:
        """One channel of several that is down is an error that names it."""
        wish = replace(_wish(bench, "app"), channels=(bench.first, bench.absent))
        problem = refused(FetchError, lambda: bench.channels.solve(wish))
        assert bench.absent in str(problem)
        problem = refused(FetchError, lambda: bench.channels.records([bench.absent], ["noarch"], ["lib"]))
        assert bench.absent in str(problem)
