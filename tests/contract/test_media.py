"""Media, held to what `haversack.ports.Media` and `MediaWriter` promise; and what may not stand on one."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack.errors import NotFoundError, UsageError
from haversack.ports.media import Folders, FolderWriter, TarStream, TarWriter
from haversack.testing import MemoryMedia, MemoryWriter
from haversack.testing.contracts import MediaBench, MediaContract


class TestFolders(MediaContract):
    """Volumes in folders."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> MediaBench:
        """A bundle in a folder that does not exist yet."""
        return MediaBench(FolderWriter(tmp_path / "out"), lambda: Folders([tmp_path / "out"]))


class TestTar(MediaContract):
    """One uncompressed tar."""

    @pytest.fixture
    def bench(self) -> MediaBench:
        """A stream into memory and out of it."""
        file = io.BytesIO()
        return MediaBench(
            TarWriter(file),
            lambda: TarStream(io.BytesIO(file.getvalue())),
            lambda: TarStream(io.BytesIO(file.getvalue()[: len(file.getvalue()) * 2 // 3])),
        )


class TestMemory(MediaContract):
    """The twin in memory, as a folder and as a stream."""

    @pytest.fixture(params=[False, True])
    def bench(self, request: pytest.FixtureRequest) -> MediaBench:
        """What the writer wrote."""
        writer = MemoryWriter()
        return MediaBench(writer, lambda: MemoryMedia(writer.content, streamed=request.param))


def volume(tmp_path: Path) -> Path:
    """A folder that counts as a volume."""
    folder = tmp_path / "volume-001"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / "SHA256SUMS").write_bytes(b"")
    return folder


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/etc/hostname"),
        lambda path: path.symlink_to("/etc", target_is_directory=True),
        os.mkfifo,
        _socket,
    ],
    ids=["link", "link to a folder", "fifo", "socket"],
)
def test_what_is_no_file_is_told_and_not_read(
    make: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link, a fifo or a socket in a volume is a member with a problem, and nothing opens it."""
    folder = volume(tmp_path)
    monkeypatch.chdir(folder)
    make(Path("x"))
    (member,) = [m for m in Folders([tmp_path]).members() if m.problem]
    assert member.path == "x"
    assert member.file is None
    assert list(member.chunks()) == []


def test_a_volume_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link beside the volumes is no volume but a member with a problem, like whatever else stands there."""
    volume(tmp_path)
    (tmp_path / "volume-002").symlink_to("/etc")
    members = list(Folders([tmp_path]).members())
    assert {Path(m.place).name for m in members if not m.problem} == {"volume-001"}
    assert [(m.place, m.path) for m in members if m.problem] == [(str(tmp_path), "volume-002")]


def test_folders_that_hold_no_bundle_are_refused(tmp_path: Path) -> None:
    """A path that is no folder, and a folder without a volume, are told at once."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(NotFoundError):
            Folders([path])


@pytest.mark.parametrize("name", ["/etc/passwd", "v/../../x", "v//x", "v", "v/..", "v/a\\b"])
def test_a_name_in_a_tar_that_leaves_its_folder_is_told(name: str) -> None:
    """No name leads out of the volume that it claims to stand in."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    (member,) = TarStream(io.BytesIO(file.getvalue())).members()
    assert "leaves" in member.problem


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_in_a_tar_is_told(type_: bytes) -> None:
    """Links and devices in a stream have a problem."""
    info = tarfile.TarInfo("volume-001/x")
    info.type, info.linkname = type_, "/etc/passwd"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(info)
    (member,) = TarStream(io.BytesIO(file.getvalue())).members()
    assert member.problem


def test_a_tar_is_read_to_its_end() -> None:
    """What stands behind the end of a tar, or is none, is read too: the writer of a pipe is not killed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("volume-001/x"))
    for data in (out.getvalue() + b"\0" * 5_000_000, b"no tar at all" * 500_000):
        file = io.BytesIO(data)
        list(TarStream(file).members())
        assert file.tell() == len(data)


def test_an_output_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    """Nobody's files are mixed with a bundle; what a killed `pack` left is taken away."""
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(UsageError, match="not an empty folder"):
        FolderWriter(tmp_path)
    assert (tmp_path / "mine").read_text() == "keep me"
    (tmp_path / "mine").unlink()
    first = FolderWriter(tmp_path)
    first.write("volume-001", "blobs/x", 1, [b"x"])
    second = FolderWriter(tmp_path)
    second.write("volume-001", "y", 1, [b"y"])
    second.finish()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "volume-001/y"
    ]
