"""What :class:`haversack.ports.Media` and :class:`haversack.ports.MediaWriter` promise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from haversack.errors import HaversackError
from haversack.ports import Media, MediaWriter
from haversack.testing.contracts.refused import refused
from haversack.testing.storage import Content

CONTENT: Content = {
    "volume-001": {
        "manifest.json": b"{}",
        "SHA256SUMS": b"",
        "blobs/sha256/aa": b"a" * 70_000,
        "environments/a b.txt": "ä".encode(),
    },
    "volume-002": {"manifest.json": b"{}", "parts/bb.000": bytes(range(256)) * 9000},
}


@dataclass(frozen=True, slots=True)
class MediaBench:
    """A writer under test and the reader of what it wrote; ``read`` may be called before ``finish`` too.

    ``truncated`` reads what is left when the medium ends too early (``None`` for media that cannot).
    """

    writer: MediaWriter
    read: Callable[[], Media]
    truncated: Callable[[], Media] | None = None


class MediaContract:
    """Tests of a medium, both ways; they take a fixture ``bench`` (a :class:`MediaBench`)."""

    def test_what_was_written_is_read(self, bench: MediaBench) -> None:
        """Volumes, names, sizes and bytes arrive as they were sent."""
        _write(bench.writer)
        assert _read(bench.read()) == CONTENT

    def test_sizes_are_those_of_the_bytes(self, bench: MediaBench) -> None:
        """A member tells its size before it is read, and no problem where there is none."""
        _write(bench.writer)
        for member in bench.read().members():
            assert member.size == sum(map(len, member.chunks()))
            assert member.problem == ""

    def test_members_may_be_left_unread(self, bench: MediaBench) -> None:
        """Whoever skips a member, or reads half of it, finds the next one whole."""
        _write(bench.writer)
        found: Content = {}
        for number, member in enumerate(bench.read().members()):
            if number % 2:
                found.setdefault(member.place.rpartition("/")[2], {})[member.path] = b"".join(member.chunks())
            else:
                next(iter(member.chunks()), None)
        assert found
        assert all(CONTENT[volume][path] == data for volume in found for path, data in found[volume].items())

    def test_a_file_of_a_member_has_its_bytes(self, bench: MediaBench) -> None:
        """Where a member lies somewhere, that file is the member; on a stream it lies nowhere."""
        _write(bench.writer)
        media = bench.read()
        for member in media.members():
            if media.streamed:
                assert member.file is None
            if member.file is not None:
                assert member.file.read_bytes() == b"".join(member.chunks())

    def test_a_stream_brings_files_in_the_order_they_were_written(self, bench: MediaBench) -> None:
        """On a stream the manifest is first, as it was written first."""
        _write(bench.writer)
        media = bench.read()
        order = [(m.place.rpartition("/")[2], m.path) for m in media.members()]
        written = [(volume, path) for volume, files in CONTENT.items() for path in files]
        assert order == written if media.streamed else sorted(order) == sorted(written)

    def test_a_folder_can_be_read_again_and_a_reader_alters_nothing(self, bench: MediaBench) -> None:
        """Reading twice gives the same twice."""
        _write(bench.writer)
        if not bench.read().streamed:
            media = bench.read()
            assert _read(media) == _read(media) == CONTENT

    def test_before_finish_nothing_looks_like_a_bundle(self, bench: MediaBench) -> None:
        """What a killed writer leaves holds no volume: the reader finds none, or a stream that breaks off."""
        for volume, files in CONTENT.items():
            for path, data in files.items():
                bench.writer.write(volume, path, len(data), [data])

        found = []
        # Any refusal is right: a folder without a volume is none, and a stream may break off.
        with contextlib.suppress(HaversackError):
            media = bench.read()
            found = [member.path for member in media.members() if not media.streamed]
        assert found == []

    def test_chunks_that_fail_are_told(self, bench: MediaBench) -> None:
        """An error out of the chunks passes through the writer."""

        def failing() -> Iterator[bytes]:
            yield b"a" * 10
            raise LookupError

        refused(LookupError, lambda: bench.writer.write("volume-001", "blobs/x", 20, failing()))

    def test_free_is_bytes_or_unknown(self, bench: MediaBench) -> None:
        """A writer knows how many bytes fit, or says that nobody knows."""
        free = bench.writer.free()
        assert free is None or free > 0

    def test_a_stream_that_ends_too_early_says_so(self, bench: MediaBench) -> None:
        """The last member of a truncated stream has a problem, or the bytes of one end in an error."""
        if bench.truncated is None:
            return
        _write(bench.writer)
        problems = []
        try:
            for member in bench.truncated().members():
                if member.problem:
                    problems.append(member.problem)
                elif sum(map(len, member.chunks())) != member.size:
                    problems.append("short")
        except OSError as problem:
            problems.append(str(problem))
        assert problems


def _write(writer: MediaWriter) -> None:
    for volume, files in CONTENT.items():
        for path, data in files.items():
            writer.write(volume, path, len(data), iter([data[:5], data[5:]]))
    writer.finish()


def _read(media: Media) -> Content:
    found: Content = {}
    for member in media.members():
        found.setdefault(member.place.rpartition("/")[2], {})[member.path] = b"".join(member.chunks())
    return found
