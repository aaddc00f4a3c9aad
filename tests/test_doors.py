"""Environments leave in the formats of other tools, and those tools' own readers take them."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import PackageWheel, Pylock
from rattler import Channel, Gateway, MatchSpec, RepoDataRecord, Subdir, solve
from rattler.config import Config
from rattler.explicit_environment import ExplicitEnvironmentSpec
from rattler.install import install
from rattler.networking import Client

from haversack.conda import engine
from haversack.doors import doors
from haversack.errors import HaversackError, IntegrityError, NotFoundError, PrefixError, UsageError
from haversack.formats import condalock, oci, pixipack, repodata
from haversack.model.artifact import Artifact, digest_of, hex_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import Target
from haversack.ports import Inside
from haversack.ports.machine import probe
from haversack.verbs import holdings
from haversack.verbs.export import Exported, export, ways
from tests.support import tiny
from tests.support.channel import ChannelServer
from tests.support.conda import Package, make_conda
from tests.support.stack import SUBDIR, real_stack
from tests.support.wheels import make_wheel

with warnings.catch_warnings(action="ignore"):
    # Untyped; conda's own code in it warns of its own age.
    CONDA_LOCK: Any = importlib.import_module("conda_lock.lockfile")

FORGE = "https://conda.example.org/conda-forge"
FILES = "https://files.example.org"
HERE = replace(probe(), name="here")
MAC = Target("mac", "macos-arm64", "3.11")
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """The inside, over a store that holds nothing yet."""
    return tiny.inside(tmp_path / "store")


def conda(package: Package, **changes: Any) -> tuple[Artifact, bytes]:
    """A package as a channel tells it, with some hotfixes to its record, and its bytes."""
    url = f"{FORGE}/{package.subdir}/{package.filename}"
    record = {**package.record, "fn": package.filename, "url": url, "channel": FORGE, **changes}
    found = repodata.artifact_of(record, "")
    assert isinstance(found, Artifact), str(found)
    return found, package.path.read_bytes()


def wheel(path: Path, origin: str = FILES) -> tuple[Artifact, bytes]:
    """A wheel and its bytes."""
    data = path.read_bytes()
    project, version, *_ = path.name.split("-")
    place = f"{origin}/{path.name}" if origin.startswith("http") else origin
    return Artifact("wheel", project, version, path.name, digest_of(data), len(data), place), data


def file(path: str, data: bytes) -> tuple[Artifact, bytes]:
    """A file of a project and its bytes."""
    name = path.replace("/", "-")
    facts = {"path": path}
    return Artifact("file", name, "", name, digest_of(data), len(data), f"path:{path}", (), facts), data


def hold(
    inside: Inside, *parts: tuple[Artifact, bytes], kind: str = "conda", targets: Sequence[Target] = (HERE,)
) -> None:
    """Make the store hold a snapshot with one environment ``geo`` of these artifacts on some targets."""
    refs = tuple(f"geo/{target.name}" for target in targets)
    artifacts = merge_artifacts(replace(artifact, members=refs) for artifact, _ in parts)
    environments = tuple(LockedEnvironment("geo", target.name, kind) for target in targets)
    lock = Lock("lab", digest_of(b""), tuple(targets), environments, artifacts)
    snapshot, metadata = oci.build(lock, {a.digest: (a.size or 0, {}) for a in artifacts})
    for digest, data in [*metadata.items(), *((a.digest, data) for a, data in parts)]:
        inside.store.add(digest, [data])
    empty = holdings.read(inside.store)
    held, _ = holdings.added(empty, "2026-11", snapshot, len(metadata[snapshot.id]), "2026-11-01T00:00:00Z")
    inside.store.publish(holdings.write(held, snapshot.id))


def tool(folder: Path, suffix: str = ".conda", **extra: Any) -> Package:
    """A small package for this machine."""
    files = {"bin/tool": (b"#!/bin/sh\necho tool\n", 0o755)}
    return make_conda(folder, "tool", "1.0", build="h0_0", subdir=SUBDIR, files=files, suffix=suffix, **extra)


def old(folder: Path) -> Package:
    """A package as they were until 2019."""
    return make_conda(folder, "old", "2.0", subdir=SUBDIR, files={"share/old": b"old\n"}, suffix=".tar.bz2")


def link(records: Iterable[RepoDataRecord], prefix: Path, cache: Path) -> None:
    """Install with rattler, which is told of no host that lives."""
    work = install(
        list(records), prefix, cache_dir=cache, platform=Subdir(SUBDIR), client=Client([], timeout=5),
        config=Config.from_toml("allow-hard-links = false"), show_progress=False,
    )  # fmt: skip
    asyncio.run(work)


def offline(words: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program where there is no network, with nothing of the machine's that steers pip or uv."""
    env = {n: v for n, v in os.environ.items() if not n.startswith(("UV_", "PIP_", "PYTHON"))}
    env |= {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(cwd.parent / "uv-cache")}
    cage = Path(oci.__file__).parent.parent / "ports" / "cage.py"
    argv = [sys.executable, "-I", "-S", cage, *words]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_door_says_what_it_is() -> None:
    """The folder is the registry: each has a name of its own, a line of text, and kinds that it carries."""
    assert list(doors()) == [
        *("conda-lock", "explicit", "explicit-md5", "package-cache", "pixi-pack", "project"),
        *("pylock", "wheelhouse"),
    ]
    for name, door in doors().items():
        assert door.name == name
        assert door.doc
        assert door.carries


def test_an_explicit_file_names_addresses_and_hashes(tmp_path: Path, inside: Inside) -> None:
    """rattler's reader finds each package at its canonical address; nothing of this machine stands in it."""
    one, two = conda(tool(tmp_path)), conda(old(tmp_path))
    hold(inside, one, two)
    done = export("geo", "explicit", tmp_path / "geo.txt", inside)
    text = (tmp_path / "geo.txt").read_text()
    spec = ExplicitEnvironmentSpec.from_str(text)
    assert str(spec.platform) == SUBDIR
    assert [p.url.partition("#")[0] for p in spec.packages] == [two[0].origin, one[0].origin]
    assert f"{one[0].origin}#sha256:{hex_of(one[0].digest)}" in text
    assert (done.files, done.size, done.left) == (("geo.txt",), len(text), ())
    export("geo", "explicit-md5", tmp_path / "md5.txt", inside)
    assert f"{one[0].origin}#{hashlib.md5(one[1]).hexdigest()}" in (tmp_path / "md5.txt").read_text()


def test_a_conda_lock_holds_all_targets(tmp_path: Path, inside: Inside) -> None:
    """conda-lock's parser and our reader find packages and wheels of both platforms, with both hashes."""
    tools = conda(
        make_conda(tmp_path, "tool", "1.0", noarch="generic", depends=["__unix", "lib >=1", "lib <2"])
    )
    demo = wheel(make_wheel(tmp_path, "demo", "1.0"))
    hold(inside, tools, demo, targets=(HERE, MAC))
    done = export("geo", "conda-lock", tmp_path / "conda-lock.yml", inside)
    assert set(done.refs) == {"geo/here", "geo/mac"}
    lock = CONDA_LOCK.parse_conda_lock_file(done.dest)
    assert {(p.name, p.platform, p.url, p.hash.sha256) for p in lock.package} == {
        (a.name, platform, a.origin, hex_of(a.digest))
        for a, _ in (tools, demo)
        for platform in (SUBDIR, "osx-arm64")
    }
    (package, _) = condalock.read(done.dest.read_bytes(), "conda-lock.yml").on("osx-arm64")
    assert package.dependencies == {"__unix": "", "lib": ">=1,<2"}
    assert package.md5 == hashlib.md5(tools[1]).hexdigest()


def test_two_targets_of_one_platform_do_not_fit_into_a_conda_lock(tmp_path: Path, inside: Inside) -> None:
    """It has a platform but once: the error says how to choose, and a choice works."""
    hold(inside, conda(tool(tmp_path)), targets=(HERE, replace(HERE, name="other")))
    with pytest.raises(UsageError, match="both for") as caught:
        export("geo", "conda-lock", tmp_path / "l.yml", inside)
    assert caught.value.remedy == "choose one: --target here"
    assert not (tmp_path / "l.yml").exists()
    assert export("geo", "conda-lock", tmp_path / "l.yml", inside, target="other").refs == ("geo/other",)


@pytest.fixture
def wheelhouse(tmp_path: Path, inside: Inside) -> Path:
    """The wheelhouse of alpha, and beta which requires it."""
    alpha = wheel(make_wheel(tmp_path / "w", "alpha", "1.0"), "built:sha256:" + "0" * 64)
    beta = wheel(make_wheel(tmp_path / "w", "beta", "1.0", requires=["alpha"]))
    hold(inside, alpha, beta, kind="pip")
    return export("geo", "wheelhouse", tmp_path / "house", inside).dest


def test_pip_installs_a_wheelhouse_without_a_network(tmp_path: Path, wheelhouse: Path) -> None:
    """``pip install -r requirements.txt`` needs nothing more, from any folder, and checks every hash."""
    prefix = tmp_path / "prefix"
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--prefix",
        prefix,
        "--require-hashes",
    ]
    done = offline([*words, "-r", wheelhouse / "requirements.txt"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Successfully installed alpha-1.0 beta-1.0" in done.stdout
    make_wheel(wheelhouse, "alpha", "1.0", modules={"alpha/__init__.py": "evil = True\n"})
    done = offline([*words, "--force-reinstall", "-r", wheelhouse / "requirements.txt"], tmp_path)
    assert "DO NOT MATCH THE HASHES" in done.stderr


@pytest.mark.parametrize("source", ["requirements.txt", "pylock.toml"])
def test_uv_installs_a_wheelhouse_without_a_network(tmp_path: Path, wheelhouse: Path, source: str) -> None:
    """``uv pip sync`` takes the requirements file and the lock, from any folder, and checks every hash."""
    words = [UV, "pip", "sync", "--offline", "--python", sys.executable, "--require-hashes"]
    done = offline([*words, "--target", tmp_path / "site", wheelhouse / source], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "beta" / "__init__.py").is_file()
    make_wheel(wheelhouse, "alpha", "1.0", modules={"alpha/__init__.py": "evil = True\n"})
    done = offline([*words, "--no-cache", "--target", tmp_path / "again", wheelhouse / source], tmp_path)
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr or "but the lockfile records" in done.stderr


def test_a_pylock_is_one_to_packaging(tmp_path: Path, inside: Inside) -> None:
    """It names address, size and sha256 of each wheel, selects them for its target and nothing for another."""
    demo = wheel(make_wheel(tmp_path, "demo", "1.0"))
    hold(inside, demo, kind="pip")
    export("geo", "pylock", tmp_path / "pylock.toml", inside)
    lock = Pylock.from_dict(tomllib.loads((tmp_path / "pylock.toml").read_text()))
    ((package, source),) = lock.select(environment=HERE.markers(), tags=HERE.tags())
    assert isinstance(source, PackageWheel)
    assert (package.name, source.url, source.size, source.hashes["sha256"]) == (
        *("demo", demo[0].origin, len(demo[1])),
        hex_of(demo[0].digest),
    )
    with pytest.raises(Exception, match="does not satisfy"):
        list(lock.select(environment=MAC.markers(), tags=MAC.tags()))


def test_uv_installs_from_the_addresses_of_a_pylock(tmp_path: Path, inside: Inside) -> None:
    """It asks for just these files, and refuses other bytes under the same address."""
    make_wheel(tmp_path / "www", "demo", "1.0")
    with ChannelServer(tmp_path / "www") as server:
        hold(
            inside, wheel(tmp_path / "www" / "demo-1.0-py3-none-any.whl", server.url.rstrip("/")), kind="pip"
        )
        lock = export("geo", "pylock", tmp_path / "pylock.toml", inside).dest
        words = [UV, "pip", "sync", "--no-config", "--no-cache", "--python", sys.executable, "--target"]
        done = subprocess.run([*words, tmp_path / "site", lock], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "site" / "demo" / "__init__.py").is_file()
        assert {request.path for request in server.asked()} == {"/demo-1.0-py3-none-any.whl"}
        make_wheel(tmp_path / "www", "demo", "1.0", modules={"demo/__init__.py": "evil = True\n"})
        done = subprocess.run([*words, tmp_path / "again", lock], capture_output=True, text=True)
        assert done.returncode != 0
        assert not (tmp_path / "again" / "demo").exists()


def test_a_pixi_pack_archive_is_as_pixi_pack_writes_it(tmp_path: Path, inside: Inside) -> None:
    """Its names, their order, its texts and the bytes in it; twice the same bytes; our own reader takes it."""
    packages = [conda(tool(tmp_path)), conda(old(tmp_path)), _python(tmp_path)]
    demo = wheel(make_wheel(tmp_path, "demo", "1.0"))
    hold(inside, *packages, demo, file("pixi.toml", b""))
    done = export("geo", "pixi-pack", tmp_path / "environment.tar", inside)
    assert done.left == ("pixi.toml",)
    with tarfile.open(done.dest, "r:") as archive:
        names = archive.getnames()
        data = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
        assert {(m.uid, m.gid, m.mode, m.mtime) for m in archive if m.isfile()} == {(0, 0, 0o644, 1153704088)}
    assert names == [
        *("channel", f"channel/{SUBDIR}", f"channel/{SUBDIR}/old-2.0-0.tar.bz2"),
        f"channel/{SUBDIR}/python-3.11.0-0.conda",
        *(f"channel/{SUBDIR}/repodata.json", f"channel/{SUBDIR}/tool-1.0-h0_0.conda"),
        *("channel/noarch", "channel/noarch/repodata.json", "environment.yml", "pixi-pack.json", "pypi"),
        "pypi/demo-1.0-py3-none-any.whl",
    ]
    assert json.loads(data["pixi-pack.json"]) == {
        "version": "1",
        "pixi-pack-version": "0.7.10",
        "platform": SUBDIR,
    }
    assert data["environment.yml"].decode().splitlines() == [
        *("channels:", "- ./channel", "- nodefaults", "dependencies:"),
        *('- "old=2.0=0"', '- "python=3.11.0=0"', '- "tool=1.0=h0_0"'),
        *("- pip:", '  - "--no-index"', '  - "--find-links ./pypi"', '  - "demo==1.0"'),
    ]
    assert data["pypi/demo-1.0-py3-none-any.whl"] == demo[1]
    with done.dest.open("rb") as stream:
        pack = pixipack.read(stream, "environment.tar")
    assert {p.digest for p in pack.packages} == {a.digest for a, _ in packages}
    again = export("geo", "pixi-pack", tmp_path / "again.tar", inside)
    assert again.dest.read_bytes() == done.dest.read_bytes()


def _python(folder: Path) -> tuple[Artifact, bytes]:
    """A package that says that it is Python."""
    return conda(make_conda(folder, "python", "3.11.0", subdir=SUBDIR))


@pytest.mark.parametrize("hotfix", [{}, {"depends": ["old"]}])
def test_rattler_solves_and_installs_from_the_channel_of_an_archive(
    tmp_path: Path, inside: Inside, hotfix: dict[str, Any]
) -> None:
    """Unpacked anywhere it is a channel with hotfixes kept, from which the specs of environment.yml install."""
    hold(inside, conda(tool(tmp_path), **hotfix), conda(old(tmp_path)))
    dest = export("geo", "pixi-pack", tmp_path / "e.tar", inside).dest
    with tarfile.open(dest, "r:") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    channel = Channel((tmp_path / "out" / "channel").as_uri())
    specs = [MatchSpec(spec) for spec in ("tool=1.0=h0_0", "old=2.0=0")]
    gateway = Gateway(cache_dir=tmp_path / "records", client=Client([], timeout=5))
    found = asyncio.run(
        solve([channel], specs, gateway=gateway, platforms=[Subdir(SUBDIR), Subdir("noarch")])
    )
    assert {record.name.normalized: list(record.depends) for record in found}["tool"] == hotfix.get(
        "depends", []
    )
    link(found, tmp_path / "prefix", tmp_path / "pkgs")
    assert (tmp_path / "prefix" / "share" / "old").read_bytes() == b"old\n"


def test_a_package_cache_makes_an_install_need_no_host(tmp_path: Path, inside: Inside) -> None:
    """rattler installs packages whose host does not exist, and tells canonical addresses in the prefix."""
    parts = [conda(tool(tmp_path)), conda(old(tmp_path))]
    hold(inside, *parts)
    done = export("geo", "package-cache", tmp_path / "cache", inside)
    assert sorted(tree(done.dest)) == list(done.files)
    assert {"pkgs/tool-1.0-h0_0/info/index.json", "pkgs/old-2.0-0/share/old"} <= set(done.files)
    assert done.size == sum(map(len, tree(done.dest).values()))
    assert str(tmp_path).encode() not in b"".join(tree(done.dest).values())
    dead = [{**repodata.record_of(a), "url": f"https://gone.invalid/{a.filename}"} for a, _ in parts]
    link(engine.to_rattler(dead), tmp_path / "prefix", done.dest / "pkgs")
    assert (tmp_path / "prefix" / "bin" / "tool").read_bytes() == b"#!/bin/sh\necho tool\n"
    with pytest.raises(Exception, match=r"gone\.invalid"):
        link(engine.to_rattler(dead), tmp_path / "other", tmp_path / "empty")


@pytest.mark.slow
def test_a_real_python_runs_from_a_package_cache(tmp_path: Path, inside: Inside) -> None:
    """An interpreter and a package on top of it, from a host that does not exist."""
    channel = real_stack(tmp_path / "channel")
    parts = []
    for subdir in (SUBDIR, "noarch"):
        table = json.loads((channel / subdir / "repodata.json").read_bytes())["packages.conda"]
        for name, record in table.items():
            if record["name"] in {"python", "packaging"}:
                parts.append(conda(Package(channel / subdir / name, record)))
    hold(inside, *parts)
    cache = export("geo", "package-cache", tmp_path / "cache", inside).dest
    dead = [{**repodata.record_of(a), "url": f"https://gone.invalid/{a.filename}"} for a, _ in parts]
    link(engine.to_rattler(dead), tmp_path / "prefix", cache / "pkgs")
    said = "import packaging, sys; print(sys.prefix, packaging.__name__)"
    done = subprocess.run([tmp_path / "prefix/bin/python", "-c", said], capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'prefix'} packaging\n", done.stderr


def test_the_files_of_a_project_come_out_as_they_were(tmp_path: Path, inside: Inside) -> None:
    """Byte for byte, each where it lay; the packages stay behind."""
    wanted = {"pixi.toml": b"[workspace]\n", "pixi.lock": b"version: 6\n", "src/deep/x.py": b"x = 1\r\n"}
    hold(inside, conda(tool(tmp_path)), *(file(path, data) for path, data in wanted.items()), kind="pixi")
    done = export("geo", "project", tmp_path / "project", inside)
    assert tree(done.dest) == wanted
    assert done.files == tuple(sorted(wanted))
    assert done.left == ("tool-1.0-h0_0.conda",)


def test_programs_of_a_project_stay_programs(tmp_path: Path, inside: Inside) -> None:
    """A file that could be run in the project can be run where it is exported to, and no other can."""
    artifact, data = file("run.sh", b"#!/bin/sh\n")
    program = replace(artifact, facts={**artifact.facts, "executable": True})
    hold(inside, (program, data), file("notes.txt", b"x"), kind="pixi")
    done = export("geo", "project", tmp_path / "project", inside)
    assert (done.dest / "run.sh").stat().st_mode & 0o111
    assert not (done.dest / "notes.txt").stat().st_mode & 0o111


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a//b", ""])
def test_a_project_file_that_leaves_its_project_is_refused(tmp_path: Path, inside: Inside, path: str) -> None:
    """Nothing is written outside the folder, nor anything inside it."""
    artifact, data = file("x", b"1")
    hold(inside, (replace(artifact, facts={"path": path}), data))
    with pytest.raises(IntegrityError, match="no path within its project"):
        export("geo", "project", tmp_path / "project", inside)
    assert not (tmp_path / "project").exists()


def test_what_cannot_leave_says_why_and_where_the_ways_out_are(tmp_path: Path, inside: Inside) -> None:
    """Each refusal names what is in the way, and the remedy the doors that are open."""
    demo = make_wheel(tmp_path, "demo", "1.0")
    for parts, closed in (
        ([wheel(demo)], {"explicit": "no artifact of kind conda", "project": "kind file"}),
        (
            [conda(tool(tmp_path)), wheel(demo)],
            {"explicit": "kind wheel", "pixi-pack": "Python to install them"},
        ),
        ([wheel(demo, "built:x")], {"pylock": "came from no server", "conda-lock": "kind conda"}),
        ([conda(tool(tmp_path), md5=None)], {"explicit-md5": "the md5", "conda-lock": "the md5"}),
        ([conda(tool(tmp_path), url="file:///c/tool-1.0-h0_0.conda")], {"explicit": "came from no server"}),
    ):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        inside = tiny.inside(tmp_path / "store")
        hold(inside, *parts)
        (environment,) = holdings.current_snapshot(inside.store)[1].environments
        for door, said in closed.items():
            with pytest.raises(UsageError, match=said) as caught:
                export("geo", door, tmp_path / "out", inside)
            assert caught.value.remedy == f"ways out: {', '.join(ways(environment))}"
            assert door not in ways(environment)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("door", ["pixi-pack", "package-cache", "wheelhouse", "project"])
def test_damage_in_the_store_does_not_leave(tmp_path: Path, inside: Inside, door: str) -> None:
    """Other bytes under a package's name stop the export; nothing is left, not even aside; no act is recorded."""
    parts = {
        "wheelhouse": wheel(make_wheel(tmp_path / "w", "demo", "1.0")),
        "project": file("pixi.toml", b"[workspace]\n"),
    }
    artifact, data = parts.get(door) or conda(tool(tmp_path / "p"))
    hold(inside, (artifact, data))
    blob = inside.store.path(artifact.digest)
    blob.chmod(0o644)
    blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    before = set(tmp_path.iterdir())
    with pytest.raises(IntegrityError):
        export("geo", door, tmp_path / "out", inside)
    assert set(tmp_path.iterdir()) == before
    assert list(inside.ledger.lines()) == []


def test_nothing_that_is_there_is_replaced_unasked(tmp_path: Path, inside: Inside) -> None:
    """A file only with force, a folder only when empty, and never one for the other."""
    hold(inside, conda(tool(tmp_path)), file("pixi.toml", b"1"))
    there = tmp_path / "there"
    there.write_text("mine")
    for door in ("explicit", "project"):
        with pytest.raises(PrefixError, match="is there already"):
            export("geo", door, there, inside)
    assert there.read_text() == "mine"
    export("geo", "explicit", there, inside, force=True)
    assert there.read_text() != "mine"
    full = tmp_path / "full"
    (full / "x").mkdir(parents=True)
    with pytest.raises(PrefixError, match="is there already"):
        export("geo", "project", full, inside, force=True)
    with pytest.raises(PrefixError, match="is a folder"):
        export("geo", "explicit", full, inside, force=True)
    (full / "x").rmdir()
    assert export("geo", "project", full, inside).files == ("pixi.toml",)


def test_an_export_is_recorded_and_a_dry_run_is_not(tmp_path: Path, inside: Inside) -> None:
    """The ledger names the environments, the door and the place; a dry run writes nothing at all."""
    hold(inside, conda(tool(tmp_path)))
    done = export("geo", "explicit", tmp_path / "e.txt", inside, dry_run=True)
    assert done == Exported(("geo/here",), "explicit", tmp_path / "e.txt", "2026-11", (), 0, ())
    assert not done.dest.exists()
    assert list(inside.ledger.lines()) == []
    export("geo", "explicit", tmp_path / "e.txt", inside)
    (line,) = inside.ledger.lines()
    assert line.entry is not None
    assert line.entry.act == "export"
    assert line.entry.details["refs"] == ["geo/here"]
    assert line.entry.details["dest"] == str(tmp_path / "e.txt")


def test_the_environment_is_chosen_for_any_machine(tmp_path: Path, inside: Inside) -> None:
    """One that fits this machine without a word, another by name; what there is not is an error with a choice."""
    hold(inside, conda(make_conda(tmp_path, "tool", "1.0", noarch="generic")), targets=(HERE, MAC))
    place = tmp_path / "e.txt"
    assert export("geo", "explicit", place, inside).refs == ("geo/here",)
    assert export("geo", "explicit", place, inside, target="mac", force=True).refs == ("geo/mac",)
    assert "# platform: osx-arm64" in place.read_text()
    wrong: list[tuple[type[HaversackError], str, str, str | None]] = [
        (NotFoundError, "geos", "explicit", None),
        (NotFoundError, "geo", "explicit", "moon"),
        (UsageError, "geo", "cellar", None),
    ]
    for error, name, door, target in wrong:
        with pytest.raises(error):
            export(name, door, tmp_path / "x", inside, target=target)
    foreign = replace(inside, machine=Target("here", "windows-amd64", "3.11"))
    with pytest.raises(NotFoundError, match="fits this machine") as caught:
        export("geo", "explicit", tmp_path / "x", foreign)
    assert "--target" in caught.value.remedy


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path, inside: Inside) -> None:
    """A file or folder beside, named like that of a process that is no more, goes; that of another one stays."""
    hold(inside, conda(tool(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    host = platform.node()
    (tmp_path / f".geo.tar.haversack-{host}-{done.stdout.strip()}").write_bytes(b"half")
    (tmp_path / f".geo.tar.haversack-{host}-{os.getppid()}").write_bytes(b"another's")
    export("geo", "pixi-pack", tmp_path / "geo.tar", inside)
    left = [path.name for path in tmp_path.glob(".geo.tar.*")]
    assert left == [f".geo.tar.haversack-{host}-{os.getppid()}"]
