from __future__ import annotations

import gzip
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import conda_pack  # type: ignore[import-untyped]
import pytest

from haversack.errors import (
    DeclarationError,
    FormatError,
    HaversackError,
    IntegrityError,
    PrefixError,
    SpaceError,
)
from haversack.kinds import Locked
from haversack.kinds.prefix import KIND
from haversack.model.artifact import digest_of
from haversack.model.lock import Lock
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports.media import Folders, FolderWriter
from haversack.relocation import condapack
from haversack.relocation.condapack import open_packed
from haversack.verbs import pack
from haversack.verbs.holdings import current_snapshot
from haversack.verbs.install import install
from haversack.verbs.receive import receive
from tests.support import tiny
from tests.support.legacy import make_conda_env, make_venv
from tests.support.packed import here


def locked(root: Path, folder: Path, check: str | None = None, key: str = "path") -> Locked:
    """The lock of the environment ``legacy`` at ``root``, for this machine."""
    environment = Environment("legacy", "prefix", ("here",), check, {key: str(root)})
    site = Site("lab", folder, digest_of(b"lab"), (here(),), (environment,))
    out = tiny.outside(folder / "outside")
    with out.store.exclusive():
        return KIND.lock(site, environment, here(), None, out)


def crossed(answer: Locked, folder: Path, *, rehearsing: bool = False) -> pack.Packed:
    """Pack what was locked, carry it over and receive it in ``folder/inside``."""
    lock = Lock("lab", digest_of(b"lab"), (here(),), (answer.environment,), answer.artifacts)
    out = tiny.outside(folder / "outside")
    done = pack.pack(
        lock, folder, out, FolderWriter(folder / "bundle"), name="2026-11", rehearsing=rehearsing
    )
    receive(Folders([folder / "bundle"]), tiny.inside(folder / "inside"))
    return done


def snapshot(folder: Path) -> SnapshotEnvironment:
    """The environment as the inside holds it."""
    (environment,) = current_snapshot(tiny.inside(folder / "inside").store, None)[1].environments
    return environment


def said(*words: str | Path) -> str:
    """What a program prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_a_conda_environment_crosses_the_gap(tmp_path: Path) -> None:
    """Locked, packed, rehearsed, received and installed, it works with its original gone, and again over itself."""
    root = make_conda_env(tmp_path / "opt" / "legacy", tmp_path)
    answer = locked(root, tmp_path, check="where && tqdm --version")
    (artifact,) = answer.artifacts
    assert (artifact.kind, artifact.filename) == ("prefix", "legacy.tar")
    assert artifact.origin == f"prefix:{root}"
    done = crossed(answer, tmp_path, rehearsing=True)
    assert [rehearsal.result for rehearsal in done.bundle.rehearsals] in (["passed"], ["skipped"])
    shutil.rmtree(tmp_path / "opt")
    inside = tiny.inside(tmp_path / "inside")
    home = tmp_path / "site" / "envs" / "legacy"
    for _ in range(2):
        told = install("legacy", home, inside, check=True)
        assert told.python is None
        assert said(home / "bin" / "where") == str(home)
        assert said(home / "bin" / "tqdm", "--version")
        assert KIND.drift(snapshot(tmp_path), home, inside.store) == []
    assert not list(home.parent.glob(".legacy*"))


def test_a_virtual_environment_crosses_the_gap(tmp_path: Path) -> None:
    """It borrows a Python of the machine inside, of the minor version that it was made with."""
    root = make_venv(tmp_path / "opt" / "legacy", tmp_path / "wheels", Path(sys.executable))
    crossed(locked(root, tmp_path), tmp_path)
    shutil.rmtree(tmp_path / "opt")
    inside = tiny.inside(tmp_path / "inside")
    environment = snapshot(tmp_path)
    assert KIND.borrows(environment, inside) == here().python
    home = tmp_path / "site" / "legacy"
    install("legacy", home, inside, check=True, compile_bytecode=True)
    assert said(home / "bin" / "tool") == str(home)
    compiled = list(home.rglob("site-packages/tool/__pycache__/*.pyc"))
    assert compiled
    assert all(str(home).encode() in path.read_bytes() for path in compiled)
    assert KIND.drift(environment, home, inside.store) == []


def test_what_blocks_is_found_when_it_is_locked(tmp_path: Path) -> None:
    """Nothing is packed while something of the folder cannot be moved; every reason is told."""
    root = tmp_path / "legacy"
    root.mkdir()
    (root / "a").symlink_to("/etc/hosts")
    (root / "b").symlink_to("/etc/passwd")
    answer = locked(root, tmp_path)
    assert answer.artifacts == ()
    assert sorted(f.subject for f in answer.findings if f.blocking) == ["a", "b"]
    assert list(tiny.outside(tmp_path / "outside").store.blobs()) == []


def test_a_folder_of_another_platform_is_refused(tmp_path: Path) -> None:
    """A folder holds programs of the machine that it stands on, and of no other."""
    (tmp_path / "legacy").mkdir()
    environment = Environment("legacy", "prefix", ("mac",), None, {"path": "legacy"})
    target = replace(here(), name="mac", platform="macos-arm64", glibc=None, macos="14.0")
    site = Site("lab", tmp_path, digest_of(b"lab"), (target,), (environment,))
    answer = KIND.lock(site, environment, target, None, tiny.outside(tmp_path / "outside"))
    assert [finding.code for finding in answer.findings] == ["prefix-unmovable"]
    assert answer.artifacts == ()


def test_locking_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    """The archive is in the store alone, readable for everybody who reads that."""
    (tmp_path / "legacy").mkdir()
    (tmp_path / "legacy" / "file").write_bytes(b"x" * 5000)
    (artifact,) = locked(tmp_path / "legacy", tmp_path).artifacts
    out = tiny.outside(tmp_path / "outside")
    assert [path.name for path in out.cache.iterdir()] == []
    assert artifact.size == out.store.size(artifact.digest)
    assert out.store.path(artifact.digest).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("key", ["path", "archive"])
def test_a_full_disk_is_told_as_such(key: str, tmp_path: Path) -> None:
    """Where there is no room for what is packed or opened, nothing is wrong with it, and nothing is left."""
    (tmp_path / "legacy").mkdir()
    (tmp_path / "legacy" / "large").write_bytes(bytes(300_000))
    if key == "archive":
        _archive(tmp_path / "legacy.tar.gz", [], (_member("large", size=300_000), bytes(300_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(SpaceError, match="no room"):
            locked(tmp_path / ("legacy" if key == "path" else "legacy.tar.gz"), tmp_path, key=key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tiny.outside(tmp_path / "outside").cache.iterdir()) == []


def test_a_place_that_is_too_long_changes_nothing(tmp_path: Path) -> None:
    """An environment that does not fit is refused with the length that would, and what was there stays."""
    root = tmp_path / "legacy"
    root.mkdir()
    (root / "program").write_bytes(f"\x7fELF\0{root}/share\0".encode())
    crossed(locked(root, tmp_path), tmp_path)
    inside = tiny.inside(tmp_path / "inside")
    with pytest.raises(PrefixError) as caught:
        install("legacy", tmp_path / ("x" * 80), inside)
    assert [finding.code for finding in caught.value.findings] == ["prefix-long"]
    assert str(len(str(root))) in caught.value.remedy
    assert not [path for path in tmp_path.iterdir() if "xxx" in path.name]
    install("legacy", tmp_path / "short", inside)
    assert (tmp_path / "short" / "program").stat().st_size == (root / "program").stat().st_size


def test_without_its_archive_drift_says_so(tmp_path: Path) -> None:
    """Where the store has let go of the archive, nothing else tells what the environment should be."""
    (tmp_path / "legacy").mkdir()
    (tmp_path / "legacy" / "file").write_text("x")
    crossed(locked(tmp_path / "legacy", tmp_path), tmp_path)
    inside = tiny.inside(tmp_path / "inside")
    install("legacy", tmp_path / "home", inside)
    environment = snapshot(tmp_path)
    inside.store.remove(environment.artifacts[0].digest)
    (finding,) = KIND.drift(environment, tmp_path / "home", inside.store)
    assert finding.code == "store-incomplete"
    assert not finding.blocking


def test_a_python_that_is_lost_fails_the_check(tmp_path: Path) -> None:
    """The check of an environment without a command of its own is that its Python starts, and knows its place."""
    root = make_venv(tmp_path / "legacy", tmp_path / "wheels", Path(sys.executable))
    crossed(locked(root, tmp_path), tmp_path)
    inside, environment = tiny.inside(tmp_path / "inside"), snapshot(tmp_path)
    home = tmp_path / "home"
    install("legacy", home, inside)
    assert KIND.check(environment, home, inside, caged=False) == []
    (home / "pyvenv.cfg").unlink()
    (finding,) = KIND.check(environment, home, inside, caged=False)
    assert "believes" in finding.message
    (home / "bin" / "python").unlink()
    (home / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    (home / "bin" / "python").chmod(0o755)
    (finding,) = KIND.check(environment, home, inside, caged=False)
    assert "does not start" in finding.message


# Archives of conda-pack


def conda_packed(root: Path, archive: Path, **options: object) -> Path:
    """An environment packed by the conda-pack library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conda_pack.CondaEnv.from_prefix(str(root)).pack(output=str(archive), **options)
    return archive


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A conda environment, with a file that no package brought, and the folder with its package cache."""
    folder = tmp_path_factory.mktemp("conda")
    root = make_conda_env(folder / "opt" / "legacy", folder)
    (root / "share").mkdir(exist_ok=True)
    (root / "share" / "note").write_text(f"made by hand in {root}/share\n")
    return root, folder


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2"])
def test_an_archive_of_conda_pack_crosses_the_gap(
    suffix: str, conda: tuple[Path, Path], tmp_path: Path
) -> None:
    """What conda-pack packed is installed as the environment that it was, at a longer place."""
    packed = conda_packed(conda[0], tmp_path / f"legacy{suffix}")
    answer = locked(packed, tmp_path, check="where", key="archive")
    assert [str(finding) for finding in answer.findings] == []
    assert answer.artifacts[0].origin == f"prefix:{packed}"
    crossed(answer, tmp_path)
    inside = tiny.inside(tmp_path / "inside")
    home = tmp_path / ("longer" * 12) / "legacy"
    install("legacy", home, inside, check=True)
    assert said(home / "bin" / "where") == str(home)
    assert (home / "share" / "note").read_text() == f"made by hand in {home}/share\n"
    told = "import sys, sysconfig; print(sys.prefix, sysconfig.get_config_var('prefix'))"
    assert said(home / "bin" / "python", "-B", "-c", told) == f"{home} {home}"
    assert not (home / "bin" / "conda-unpack").exists()
    assert KIND.drift(snapshot(tmp_path), home, inside.store) == []
    # Locked as a folder and from the archive, the programs have the same room.
    (artifact,) = snapshot(tmp_path).artifacts
    assert artifact.facts["room"] == 255


def test_an_archive_of_a_pure_environment_is_put_back_too(tmp_path: Path) -> None:
    """Where nothing tells what the old path was, the placeholders of the packages still do."""
    root = make_conda_env(tmp_path / "opt" / "legacy", tmp_path, specs=("where",))
    packed = conda_packed(root, tmp_path / "legacy.tar.gz")
    answer = locked(packed, tmp_path, key="archive")
    assert [str(finding) for finding in answer.findings] == []
    crossed(answer, tmp_path)
    install("legacy", tmp_path / "home", tiny.inside(tmp_path / "inside"))
    assert said(tmp_path / "home" / "bin" / "where") == str(tmp_path / "home")


def test_archives_that_are_none_are_refused(conda: tuple[Path, Path], tmp_path: Path) -> None:
    """Something else, something damaged, and what conda-pack made for one place alone, are each told apart."""
    with pytest.raises(DeclarationError):
        locked(tmp_path / "absent.tar.gz", tmp_path, key="archive")
    (tmp_path / "x.tar.gz").write_bytes(b"no archive at all" * 100)
    with pytest.raises(FormatError, match="no tar archive"):
        locked(tmp_path / "x.tar.gz", tmp_path, key="archive")
    fixed = conda_packed(conda[0], tmp_path / "fixed.tar", dest_prefix="/opt/one/place")
    with pytest.raises(FormatError, match="dest-prefix"):
        locked(fixed, tmp_path, key="archive")
    whole = conda_packed(conda[0], tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((IntegrityError, FormatError)):
        locked(tmp_path / "cut.tar.gz", tmp_path, key="archive")
    assert [path.name for path in (tmp_path / "outside" / "haversack" / "cache").iterdir()] == []


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, 0o755
    return info


@pytest.mark.parametrize(
    "members",
    [
        [_member("../evil")],
        [_member("/tmp/evil")],
        [_member("a", tarfile.SYMTYPE, ".."), _member("a/evil")],
        [_member("a", tarfile.SYMTYPE, ".."), _member("a", tarfile.DIRTYPE)],
        [_member("a", tarfile.LNKTYPE, "../../outside")],
        [_member("a", tarfile.LNKTYPE, "/etc/passwd")],
        [_member("a", tarfile.SYMTYPE, "/etc/passwd"), _member("b", tarfile.LNKTYPE, "a")],
        [_member("a", tarfile.SYMTYPE, "/etc"), _member("b", tarfile.LNKTYPE, "a/passwd")],
        [_member("a", tarfile.CHRTYPE)],
        [_member("a", size=100 << 20)],
    ],
)
def test_an_archive_that_leads_elsewhere_is_refused(members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    """Nothing is written outside of its folder, and no more than an archive of its size may hold."""
    place = tmp_path / "evil.tar.gz"
    with tarfile.open(place, "w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IntegrityError):
        open_packed(place, tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder")
    assert sorted(tmp_path.iterdir()) == before
    assert not Path("/tmp/evil").exists()


def _archive(
    place: Path,
    rows: list[tuple[str, str, str]],
    *members: tuple[tarfile.TarInfo, bytes],
    records: object = None,
) -> Path:
    """An archive with members, the table of conda-unpack, and a record of conda."""
    table = "".join(f"{row!a},\n" for row in rows)
    told = [(_member("bin", tarfile.DIRTYPE), b""), (_member("bin/conda-unpack"), _SCRIPT % table.encode())]
    if records is not None:
        told += [(_member("conda-meta", tarfile.DIRTYPE), b"")]
        told += [(_member("conda-meta/a-1-0.json"), json.dumps(records).encode())]
    kinds = {info.name for info, _ in members}
    with tarfile.open(place, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, data in [*(one for one in told if one[0].name not in kinds), *members]:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return place


_SCRIPT = b"#!/usr/bin/env python\n_prefix_records = [\n%b]\n"


def _record(**row: object) -> dict[str, object]:
    """A record of conda of a package with one file."""
    return {"name": "a", "version": "1", "build": "0", "paths_data": {"paths": [row]}}


@pytest.mark.parametrize(
    ("name", "rows", "row"),
    [
        ("lib", [("lib/bashrc", "/etc/profile", "text"), ("x", "/evil", "text"), ("y", "/evil", "text")], {}),
        ("lib", [("x", "/evil", "text")],
         {"_path": "lib/bashrc", "prefix_placeholder": "/etc/profile", "file_mode": "text"}),
        ("lib", [("../victim/bashrc", "/etc/profile", "text"), ("x", "/evil", "text"), ("y", "/evil", "text")], {}),
        ("bin", [], {}),
        ("conda-meta", [], {}),
        ("deep/lib", [("deep/lib/bashrc", "/etc/profile", "text"), ("x", "/evil", "text"), ("y", "/evil", "text")], {}),
    ],
)  # fmt: skip
def test_no_link_of_an_archive_leads_to_a_file_outside(
    name: str, rows: list[tuple[str, str, str]], row: dict[str, object], tmp_path: Path
) -> None:
    """Whatever an archive links to, and whatever its table names, nothing outside is altered or removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "bashrc").write_text("source /etc/profile\n")
    (victim / "conda-unpack").write_bytes(_SCRIPT % b"")
    (victim / "conda_unpack_progress.py").touch()
    (victim / "a-1-0.json").write_text(json.dumps(_record(_path="bin/tool")))
    before = {path.name: path.read_bytes() for path in victim.iterdir()}
    place = _archive(
        tmp_path / "evil.tar.gz",
        rows,
        (_member("bin/tool"), b"#!/usr/bin/env python\n"),
        *([(_member("deep", tarfile.DIRTYPE), b"")] if "/" in name else []),
        (_member(name, tarfile.SYMTYPE, str(victim)), b""),
        records=_record(**row) if row else None,
    )
    if name == "bin":
        with tarfile.open(place, "w:gz") as tar:
            tar.addfile(_member("bin", tarfile.SYMTYPE, str(victim)))
        with pytest.raises(FormatError, match="conda-unpack"):
            open_packed(place, tmp_path / "folder")
    else:
        open_packed(place, tmp_path / "folder")
    assert {path.name: path.read_bytes() for path in victim.iterdir()} == before


def _dated(date: str) -> tuple[tarfile.TarInfo, bytes]:
    info = _member("file")
    info.pax_headers = {"mtime": date}
    return info, b""


@pytest.mark.parametrize(
    ("rows", "members"),
    [
        ([("file", "/a\ud800", "text")], [(_member("file"), b"/a")]),
        ([("file", "", "binary")], [(_member("file"), b"\0\0")]),
        ([("file", "a", "text")], [(_member("file"), b"aaa")]),
        ([("file", "/a", "binary"), ("x", "/longer", "text"), ("y", "/longer", "text")], [(_member("file"), b"\0/a\0x")]),
        ([], [_dated("1e30")]),
        ([], [_dated("nan")]),
    ],
)  # fmt: skip
def test_an_archive_that_contradicts_itself_is_refused(
    rows: list[tuple[str, str, str]], members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    """Placeholders that are no path or too short, and dates that are none, are errors that name the archive."""
    place = _archive(tmp_path / "odd.tar.gz", rows, *members)
    with pytest.raises((FormatError, IntegrityError)) as caught:
        open_packed(place, tmp_path / "folder")
    assert caught.value.where == str(place)


@pytest.mark.parametrize(
    "record",
    [
        b"[" * 100_000,
        json.dumps(_record(_path="file", prefix_placeholder="", file_mode="binary")).encode(),
        json.dumps(_record(_path="file", prefix_placeholder="x", file_mode="text")).encode(),
        json.dumps(_record(_path="fi\0le", prefix_placeholder="/x")).encode(),
        json.dumps(_record(_path="fi\ud800le", prefix_placeholder="/x\ud800")).encode(),
    ],
)
def test_a_record_that_is_none_is_left_to_the_scan(record: bytes, tmp_path: Path) -> None:
    """What a record says beside all reason puts nothing back."""
    data = b"\0\0x\0"
    meta = (_member("conda-meta", tarfile.DIRTYPE), b"")
    place = _archive(
        tmp_path / "odd.tar.gz", [], meta, (_member("conda-meta/a.json"), record), (_member("file"), data)
    )
    open_packed(place, tmp_path / "folder")
    assert (tmp_path / "folder" / "file").read_bytes() == data


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [0, 1 << 28])
def test_headers_that_would_fill_the_memory_are_refused(kind: bytes, size: int, tmp_path: Path) -> None:
    """A name of 256 MiB, or thousands of headers for one file, do not get as far as that."""
    header = _member("x", kind, size=size).tobuf(tarfile.GNU_FORMAT)
    with gzip.open(tmp_path / "odd.tar.gz", "wb", 1) as file:
        file.write(header * (1 if size else 3000))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(_member("y").tobuf() + bytes(10240))
    tracemalloc.start()
    with pytest.raises(HaversackError):
        open_packed(tmp_path / "odd.tar.gz", tmp_path / "folder")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_large_file_is_put_back_without_holding_it(tmp_path: Path) -> None:
    """A program of 48 MiB gets its path a few mebibytes at a time, under both of its names."""
    data = b"\0/placeholder\0" + b"\1" * (48 << 20) + b"/placeholder/lib\0"
    rows = [("file", "/placeholder", "binary"), ("x", "/old", "text"), ("y", "/old", "text")]
    place = _archive(
        tmp_path / "large.tar.gz",
        rows,
        (_member("file"), data),
        (_member("twin", tarfile.LNKTYPE, "file"), b""),
    )
    tracemalloc.start()
    assert open_packed(place, tmp_path / "folder") == ("/old",)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
    want = data.replace(b"/placeholder\0", b"/old" + bytes(9)).replace(
        b"/placeholder/lib", b"/old/lib" + bytes(8)
    )
    assert (tmp_path / "folder" / "file").read_bytes() == want
    assert (tmp_path / "folder" / "twin").samefile(tmp_path / "folder" / "file")


def test_of_a_file_that_stands_twice_the_last_one_counts(tmp_path: Path) -> None:
    """conda-pack writes a file that two packages bring once for each; a link gives way as well, unfollowed."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(_member("share/x", size=5), io.BytesIO(b"first"))
        tar.addfile(_member("link", tarfile.SYMTYPE, str(outside)))
        tar.addfile(_member("share/x", size=4), io.BytesIO(b"last"))
        tar.addfile(_member("link", size=4), io.BytesIO(b"file"))
    packed.seek(0)
    folder = tmp_path / "opened"
    folder.mkdir()
    with tarfile.open(fileobj=packed) as tar:
        condapack._unpack(tar, folder, 1 << 30)
    assert (folder / "share" / "x").read_bytes() == b"last"
    assert (folder / "link").read_bytes() == b"file"
    assert outside.read_bytes() == b"mine"
