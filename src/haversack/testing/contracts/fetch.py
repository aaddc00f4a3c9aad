"""What :class:`haversack.ports.Fetch` promises."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import FetchError, IntegrityError
from haversack.model.artifact import digest_of
from haversack.ports import Fetch
from haversack.testing.contracts.refused import refused

BODY = bytes(range(256)) * 1000


@dataclass(frozen=True, slots=True)
class FetchBench:
    """A fetch under test; ``url`` gives :data:`BODY`, ``absent`` is a URL on the same host that gives nothing."""

    fetch: Fetch
    url: str
    absent: str


class FetchContract:
    """Tests of a fetch; they take a fixture ``bench`` (a :class:`FetchBench`) and pytest's ``tmp_path``."""

    def test_a_file_arrives(self, bench: FetchBench, tmp_path: Path) -> None:
        """The bytes are those of the host, and what was told on the way adds up to their number."""
        told: list[int] = []
        assert bench.fetch.get(bench.url, digest_of(BODY), tmp_path / "file", told.append) == len(BODY)
        assert (tmp_path / "file").read_bytes() == BODY
        assert sum(told) == len(BODY)

    def test_a_file_that_was_cut_off_is_completed(self, bench: FetchBench, tmp_path: Path) -> None:
        """Whatever the destination holds already, right or wrong, too little or too much, the end is right."""
        for number, held in enumerate((b"", BODY[:1000], b"other" * 10, BODY, BODY + b"more")):
            dest = tmp_path / str(number)
            dest.write_bytes(held)
            told: list[int] = []
            assert bench.fetch.get(bench.url, digest_of(BODY), dest, told.append) == len(BODY)
            assert dest.read_bytes() == BODY
            assert sum(told) == len(BODY)

    def test_other_bytes_are_refused(self, bench: FetchBench, tmp_path: Path) -> None:
        """A digest that does not fit raises ``IntegrityError``, which names the URL."""
        dest = tmp_path / "file"
        problem = refused(
            IntegrityError, lambda: bench.fetch.get(bench.url, digest_of(b"other"), dest, lambda _: None)
        )
        assert bench.url in str(problem)
        assert not dest.exists()

    def test_no_more_than_its_size_is_taken(self, bench: FetchBench, tmp_path: Path) -> None:
        """A file that is larger than it should be raises ``IntegrityError`` saying so, and nothing of it stays."""
        dest, digest, size = tmp_path / "file", digest_of(BODY), len(BODY)
        dest.write_bytes(BODY[:1000])
        told: list[int] = []
        problem = refused(
            IntegrityError, lambda: bench.fetch.get(bench.url, digest, dest, told.append, size=size - 1)
        )
        assert f"more than the {size - 1} bytes" in str(problem)
        assert bench.url in str(problem)
        assert (sum(told), dest.exists()) == (0, False)
        assert bench.fetch.get(bench.url, digest, dest, lambda _: None, size=size) == size

    def test_a_file_that_nobody_knows_yet_is_taken(self, bench: FetchBench, tmp_path: Path) -> None:
        """Without a digest the whole file arrives, whatever lay there, and what it is is told."""
        dest = tmp_path / "file"
        dest.write_bytes(BODY[:1000])
        told: list[int] = []
        assert bench.fetch.take(bench.url, dest, told.append) == digest_of(BODY)
        assert dest.read_bytes() == BODY
        assert sum(told) == len(BODY)
        refused(FetchError, lambda: bench.fetch.take(bench.absent, dest, told.append))

    def test_what_is_not_there_is_told(self, bench: FetchBench, tmp_path: Path) -> None:
        """A file that the host has not raises ``FetchError``, which names the URL."""
        dest = tmp_path / "file"
        problem = refused(
            FetchError, lambda: bench.fetch.get(bench.absent, digest_of(BODY), dest, lambda _: None)
        )
        assert bench.absent in str(problem)

    def test_a_size_is_told_or_unknown(self, bench: FetchBench) -> None:
        """The size is the file's; of one that is not there nobody knows it, or that is told."""
        assert bench.fetch.size(bench.url) in {len(BODY), None}
        with contextlib.suppress(FetchError):
            assert bench.fetch.size(bench.absent) is None

    def test_a_password_is_never_repeated(self, bench: FetchBench, tmp_path: Path) -> None:
        """Errors name the URL without the user and the password that somebody wrote into it."""
        scheme, _, rest = bench.absent.partition("://")
        if scheme == "file":
            return
        url = f"{scheme}://ada:hunter2@{rest}"

        def get() -> int:
            return bench.fetch.get(url, digest_of(BODY), tmp_path / "file", lambda _: None)

        problem = refused(FetchError, get)
        assert "hunter2" not in f"{problem} {problem.remedy} {problem.__cause__}"
