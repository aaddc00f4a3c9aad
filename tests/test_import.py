"""Archives of other tools come in: known by what is in them, checked against it, declared without a scratch."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import importlib
import io
import json
import lzma
import tarfile
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rattler import Subdir
from rattler.install import install

from haversack.conda import engine
from haversack.errors import (
    DeclarationError,
    FormatError,
    HaversackError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    ResolutionError,
    UsageError,
)
from haversack.formats import declaration, pixipack
from haversack.formats.schema import Key, KindKeys
from haversack.model.finding import Finding
from haversack.verbs.adopt import Adopted, adopt
from tests.support.conda import Package, make_conda
from tests.support.wheels import make_wheel

KINDS = {
    "conda": KindKeys("Conda.", {"archive": Key("file", "Of pixi-pack.")}),
    "prefix": KindKeys("Prefix.", {"archive": Key("file", "Of conda-pack.")}),
    "pip": KindKeys("Pip.", {"requirements": Key("files", "Lists.")}),
}
"""Kinds that take archives."""
Files = dict[str, bytes]


def packages(folder: Path) -> list[Package]:
    """Three packages of both formats and both subdirs."""
    return [
        make_conda(folder, "python", "3.12.4", build="h1_0", depends=["__glibc >=2.34,<3.0.a0"]),
        make_conda(folder, "tool", "1!1.0", build="pyh_0", noarch="python", depends=["python >=3.11"]),
        make_conda(folder, "old", "2.0", build="0", suffix=".tar.bz2"),
    ]


def pixi_pack(folder: Path) -> Files:
    """The files of an archive as pixi-pack 0.7.10 makes them, put together from its source by hand.

    Every record stands under ``packages.conda``, repodata is pretty-printed, a subdir is there only with
    packages, versions and builds stand in environment.yml without quotes.
    """
    wheel = make_wheel(folder / "w", "demo_pkg", "1.0")
    made = packages(folder)
    files: Files = {f"channel/{p.subdir}/{p.filename}": p.path.read_bytes() for p in made}
    for subdir in ("linux-64", "noarch"):
        table = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": {p.filename: p.record for p in made if p.subdir == subdir},
            "repodata_version": 2,
        }
        files[f"channel/{subdir}/repodata.json"] = json.dumps(table, indent=2).encode()
    specs = [f"  - {p.record['name']}={p.record['version']}={p.record['build']}" for p in made]
    lines = ["channels:", "  - ./channel", "  - nodefaults", "dependencies:", *specs]
    lines += ["  - pip:", "    - --no-index", "    - --find-links ./pypi", "    - demo-pkg==1.0"]
    files["environment.yml"] = "".join(f"{line}\n" for line in lines).encode()
    told = {"version": "1", "pixi-pack-version": "0.7.10", "platform": "linux-64"}
    files["pixi-pack.json"] = json.dumps(told, indent=2).encode()
    files[f"pypi/{wheel.name}"] = wheel.read_bytes()
    return files


def tarred(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """A tar of some files with the folders above them, as the tar library of Rust writes it; then ``more``."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        seen: set[str] = set()
        for name in sorted(files, key=lambda name: name.split("/")):
            for depth in range(1, name.count("/") + 1):
                folder = "/".join(name.split("/")[:depth])
                if folder not in seen:
                    seen.add(folder)
                    head = tarfile.TarInfo(folder)
                    head.type, head.mode, head.mtime = tarfile.DIRTYPE, 0o755, 1153704088
                    archive.addfile(head)
            head = tarfile.TarInfo(name)
            head.size, head.mode, head.mtime = len(files[name]), 0o644, 1153704088
            archive.addfile(head, io.BytesIO(files[name]))
        for head in more:
            archive.addfile(head)
    return raw.getvalue()


def edited(files: Files, path: str, change: Any) -> Files:
    """The files with a JSON text among them changed."""
    value = json.loads(files[path])
    change(value)
    return {**files, path: json.dumps(value).encode()}


def read(data: bytes) -> pixipack.PixiPack:
    """What our reader makes of an archive."""
    return pixipack.read(io.BytesIO(data), "environment.tar")


def refused(data: bytes, error: type[HaversackError]) -> list[str]:
    """Why an archive is refused: codes and places of all findings, sorted."""
    with pytest.raises(error) as caught:
        read(data)
    assert caught.value.remedy or caught.value.findings
    found: tuple[Finding, ...] = caught.value.findings
    assert all(finding.remedy for finding in found)
    return sorted(f"{f.code} {f.subject.removeprefix('environment.tar: ')}" for f in found)


def test_an_archive_of_pixi_pack_is_read_whole(tmp_path: Path) -> None:
    """Packages with their records as they stand, wheels, what was asked for, and for which platform."""
    files = pixi_pack(tmp_path)
    pack = read(tarred(files))
    assert pack.platform == "linux-64"
    for file in (*pack.packages, *pack.wheels):
        assert file.digest == f"sha256:{hashlib.sha256(files[file.path]).hexdigest()}"
        assert file.size == len(files[file.path])
    told = {p.filename: {**p.record, "fn": p.filename} for p in packages(tmp_path)}
    assert {file.filename: file.record for file in pack.packages} == told
    assert [file.filename for file in pack.wheels] == ["demo_pkg-1.0-py3-none-any.whl"]
    assert set(pack.environment.specs) == {"python=3.12.4=h1_0", "tool=1!1.0=pyh_0", "old=2.0=0"}


def test_members_are_read_in_turn_for_the_store(tmp_path: Path) -> None:
    """Every file with its bytes, folders left out."""
    files = pixi_pack(tmp_path)
    found = {
        path: b"".join(chunks()) for path, _, chunks in pixipack.members(io.BytesIO(tarred(files)), "e.tar")
    }
    assert found == files


@pytest.mark.parametrize("number", range(8))
def test_a_damaged_archive_is_refused(tmp_path: Path, number: int) -> None:
    """Everything that is in it is compared with what it says of itself, and all of it is told at once."""
    files = pixi_pack(tmp_path)
    tool, records = "channel/noarch/tool-1!1.0-pyh_0.conda", "channel/noarch/repodata.json"
    old = "channel/linux-64/old-2.0-0.tar.bz2"
    whl = "pypi/demo_pkg-1.0-py3-none-any.whl"

    def without(*paths: str) -> Files:
        return {path: data for path, data in files.items() if path not in paths}

    def unhashed(value: Any) -> None:
        del value["packages.conda"]["tool-1!1.0-pyh_0.conda"]["sha256"]

    def foreign(value: Any) -> None:
        value["packages.conda"]["tool-1!1.0-pyh_0.conda"]["subdir"] = "win-64"

    cases: list[tuple[Files, type[HaversackError], list[str]]] = [
        (
            {**files, tool: files[tool][:-1] + b"x", old: b"tampered"},
            IntegrityError,
            [f"blob-damaged {old}", f"blob-damaged {tool}"],
        ),
        (
            without(tool, whl),
            IncompleteError,
            ["blob-missing environment.yml", f"blob-missing {tool}"],
        ),
        (without(records), IntegrityError, [f"file-extra {tool}"]),
        (edited(files, records, unhashed), ResolutionError, [f"conda-unhashed {tool}"]),
        (
            edited(files, records, foreign),
            IntegrityError,
            ["conda-invalid channel/noarch/repodata.json", f"file-extra {tool}"],
        ),
        ({**files, "pypi/more-1.0.tar.gz": b""}, IntegrityError, ["wheel-invalid pypi/more-1.0.tar.gz"]),
        (
            {**files, "run.sh": b"", "pypi/More-1.0-py3-none-any.whl": b"", "PIXI-pack.json": b""},
            IntegrityError,
            [
                *("file-extra PIXI-pack.json", "file-extra environment.yml", "file-extra run.sh"),
                "name-clash pixi-pack.json",
            ],
        ),
        (
            {**files, "channel/osx-64/repodata.json": files[records]},
            IntegrityError,
            ["conda-invalid channel/osx-64/repodata.json"],
        ),
    ]
    changed, error, expected = cases[number]
    assert refused(tarred(changed), error) == sorted(expected)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "channel/../../evil", "channel/aux", "a\\b", "a:b"])
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    """Before a byte of it is read."""
    assert refused(tarred({**pixi_pack(tmp_path), name: b"x"}), IntegrityError)[0].startswith("path-unsafe")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    """pixi-pack writes none."""
    head = tarfile.TarInfo("pypi/evil-1.0-py3-none-any.whl")
    head.type, head.linkname = kind, "/etc/passwd"
    assert refused(tarred(pixi_pack(tmp_path), head), IntegrityError) == [f"path-unsafe {head.name}"]


def test_an_archive_of_another_version_or_platform_is_refused(tmp_path: Path) -> None:
    """A newer format is not guessed at, and a platform is one that targets have."""
    files = pixi_pack(tmp_path)
    for key, value, said in (("version", "2", "format '2'"), ("platform", "linux-ppc64le", "linux-ppc64le")):
        changed = edited(
            files, "pixi-pack.json", lambda told, key=key, value=value: told.update({key: value})
        )
        with pytest.raises(FormatError, match=said):
            read(tarred(changed))
    with pytest.raises(IntegrityError, match="'version' is not a string"):
        read(tarred(edited(files, "pixi-pack.json", lambda told: told.update(version=1))))
    for path in ("pixi-pack.json", "environment.yml"):
        with pytest.raises(FormatError, match=f"has no {path}"):
            read(tarred({name: data for name, data in files.items() if name != path}))


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    """Wherever it ends."""
    data = tarred(pixi_pack(tmp_path))
    for size in (100, 513, len(data) // 2, len(data) - tarfile.RECORDSIZE):
        with pytest.raises((IntegrityError, FormatError)):
            read(data[:size])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(b"x", mtime=0), "is compressed"),
        (b"\x28\xb5\x2f\xfd\x00", "is compressed"),
        (b"#!/bin/sh\n", "self-extracting"),
    ],
)
def test_what_pixi_pack_does_not_write_is_named(data: bytes, said: str) -> None:
    """A compressed archive and a self-extracting one are told apart from a damaged one."""
    with pytest.raises(FormatError, match=said):
        read(data)


# Importing


def test_importing_declares_the_archive(tmp_path: Path) -> None:
    """It is put beside a new declaration, for the oldest machine that its packages run on."""
    archive, site = tmp_path / "Environment.tar", tmp_path / "my site"
    archive.write_bytes(tarred(pixi_pack(tmp_path)))
    done = adopt(archive, site, kinds=KINDS)
    target = "linux-x86_64-glibc2.34-py312"
    place = site / "Environment.tar"
    path = site / "haversack.toml"
    assert done == Adopted("environment", "conda", (target,), place, path, made=True, copied=True)
    assert place.read_bytes() == archive.read_bytes()
    found = declaration.parse(path, KINDS)
    assert found.name == "my-site"
    (environment,) = found.environments
    assert (environment.kind, environment.targets) == ("conda", (target,))
    assert environment.settings["archive"] == "Environment.tar"
    assert sorted(p.name for p in site.iterdir()) == ["Environment.tar", "haversack.toml"]


def test_importing_changes_nothing_that_is_declared(tmp_path: Path) -> None:
    """Comments and all stay byte for byte; an archive that lies below stays where it is."""
    text = '[site]\r\nname = "lab"   # ours\n\n[env.a]\nkind="pip"\ntargets = ["linux-x86_64-py311"]\nrequirements = [\n  "r.txt",\n]'
    (tmp_path / "haversack.toml").write_bytes(text.encode())
    (tmp_path / "r.txt").write_text("x\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "e.tar").write_bytes(tarred(pixi_pack(tmp_path / "p")))
    done = adopt(tmp_path / "in" / "e.tar", tmp_path, name="geo", targets=["linux-x86_64-py312"], kinds=KINDS)
    assert (done.made, done.copied, done.targets) == (False, False, ("linux-x86_64-py312",))
    written = (tmp_path / "haversack.toml").read_bytes().decode()
    assert written == (
        f'{text}\n\n[env.geo]\nkind = "conda"\narchive = "in/e.tar"\ntargets = ["linux-x86_64-py312"]\n'
    )
    with pytest.raises(UsageError, match="geo already"):
        adopt(tmp_path / "in" / "e.tar", tmp_path, name="geo", kinds=KINDS)
    assert (tmp_path / "haversack.toml").read_bytes().decode() == written


def test_a_declaration_behind_a_link_stays_there(tmp_path: Path) -> None:
    """The file that a link leads to gets the table, keeps its mode, and the link stays a link."""
    real = tmp_path / "elsewhere" / "site.toml"
    real.parent.mkdir()
    real.write_text('[site]\nname = "lab"\n')
    real.chmod(0o640)
    (tmp_path / "haversack.toml").symlink_to(real)
    archive = tmp_path / "environment.tar"
    archive.write_bytes(tarred(pixi_pack(tmp_path / "made")))
    adopt(archive, tmp_path, name="geo", kinds=KINDS)
    assert (tmp_path / "haversack.toml").is_symlink()
    assert "[env.geo]" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def conda_pack() -> Files:
    """The files of an archive as conda-pack writes them: packages first, records among them."""
    told = {"name": "python", "version": "3.10.2", "subdir": "linux-aarch64", "depends": ["__glibc >=2.17"]}
    return {
        "bin/python": b"\x7fELF",
        "conda-meta/python-3.10.2-0.json": json.dumps(told).encode(),
        "conda-meta/pure-1-0.json": json.dumps({"name": "pure", "subdir": "noarch"}).encode(),
        "conda-meta/history": b"",
        "bin/conda-unpack": b"#!/bin/sh\n",
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_an_archive_of_conda_pack_is_known(tmp_path: Path, pack: Any) -> None:
    """Compressed or not; it becomes a prefix for what its packages say that they are for."""
    archive = tmp_path / "legacy.tar.gz"
    archive.write_bytes(pack(tarred(conda_pack())))
    done = adopt(archive, tmp_path, kinds=KINDS)
    assert (done.name, done.kind, done.targets) == (
        "legacy",
        "prefix",
        ("linux-aarch64-glibc2.28-py310",),
    )
    table = tomllib.loads((tmp_path / "haversack.toml").read_text())["env"]["legacy"]
    assert table == {"kind": "prefix", "archive": "legacy.tar.gz", "targets": list(done.targets)}


def test_an_archive_that_conda_pack_itself_made_is_known(tmp_path: Path) -> None:
    """Its library packs a prefix that rattler made; we know it for what it is."""
    with warnings.catch_warnings(action="ignore"):
        conda_pack: Any = importlib.import_module("conda_pack")
    made = make_conda(tmp_path, "tool", "1.0", files={"bin/tool": b"#!/bin/sh\n"})
    url = made.path.as_uri()
    record = {**made.record, "fn": made.filename, "url": url, "channel": tmp_path.as_uri()}
    work = install(
        engine.to_rattler([record]),
        tmp_path / "prefix",
        cache_dir=tmp_path / "cache",
        platform=Subdir("linux-64"),
        show_progress=False,
    )
    asyncio.run(work)
    conda_pack.pack(prefix=str(tmp_path / "prefix"), output=str(tmp_path / "legacy.tar.gz"), verbose=False)
    done = adopt(tmp_path / "legacy.tar.gz", tmp_path / "site", kinds=KINDS)
    assert (done.kind, done.targets) == ("prefix", ("linux-x86_64-glibc2.28-py311",))


def test_an_archive_that_does_not_say_for_what_it_is_asks(tmp_path: Path) -> None:
    """With packages for every platform alone nobody can tell."""
    meta = json.dumps({"name": "pure", "subdir": "noarch"}).encode()
    (tmp_path / "e.tar").write_bytes(tarred({"conda-meta/pure-1-0.json": meta}))
    with pytest.raises(UsageError, match="for what machine") as caught:
        adopt(tmp_path / "e.tar", tmp_path, kinds=KINDS)
    assert caught.value.remedy == "name it: --target NAME"
    assert adopt(tmp_path / "e.tar", tmp_path, kinds=KINDS, targets=["linux-x86_64-py311"]).name == "e"


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (tarred({"README": b""}), FormatError, "neither pixi-pack nor conda-pack"),
        (b"PK\x03\x04", FormatError, "is a zip"),
        (b"\x28\xb5\x2f\xfd", FormatError, "zstd"),
        (b"hsqs", FormatError, "SquashFS"),
        (b"#!/usr/bin/env bash\n", FormatError, "unpacks itself"),
        (b"x" * 600, IntegrityError, "not a whole tar"),
        (gzip.compress(tarred(conda_pack()))[:-20], IntegrityError, "not a whole tar"),
        (bz2.compress(tarred(conda_pack()))[:40] + b"x" * 40, IntegrityError, "not a whole tar"),
    ],
)
def test_what_is_no_archive_leaves_no_trace(
    tmp_path: Path, data: bytes, error: type[HaversackError], said: str
) -> None:
    """The error says what it is and what to do; there is neither a declaration nor a copy."""
    archive, site = tmp_path / "x.tar", tmp_path / "site"
    site.mkdir()
    archive.write_bytes(data)
    with pytest.raises(error, match=said) as caught:
        adopt(archive, site, kinds=KINDS)
    assert caught.value.where == "x.tar"
    assert caught.value.remedy
    assert list(site.iterdir()) == []


def test_a_tampered_package_is_not_imported(tmp_path: Path) -> None:
    """pixi-unpack would install it."""
    files = pixi_pack(tmp_path)
    files["channel/noarch/tool-1!1.0-pyh_0.conda"] = b"tampered"
    (tmp_path / "e.tar").write_bytes(tarred(files))
    with pytest.raises(IntegrityError) as caught:
        adopt(tmp_path / "e.tar", tmp_path / "site", kinds=KINDS)
    assert [finding.code for finding in caught.value.findings] == ["blob-damaged"]
    assert list((tmp_path / "site").iterdir()) == []


def test_a_wish_that_cannot_be_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """No archive, a bad name, a file in the way, a declaration that is broken or would be."""
    archive, site = tmp_path / "e.tar", tmp_path / "site"
    with pytest.raises(NotFoundError):
        adopt(archive, site, kinds=KINDS)
    archive.write_bytes(tarred(pixi_pack(tmp_path)))
    with pytest.raises(UsageError, match="cannot be the name"):
        adopt(archive, site, name="a/b", kinds=KINDS)
    with pytest.raises(DeclarationError, match="no target of that name") as caught:
        adopt(archive, site, targets=["moon"], kinds=KINDS)
    assert caught.value.where == "haversack.toml: env.e.targets[0]"
    assert list(site.iterdir()) == []
    (site / "e.tar").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        adopt(archive, site, kinds=KINDS)
    (site / "haversack.toml").write_text("[site")
    with pytest.raises(DeclarationError, match="is not TOML"):
        adopt(archive, site, kinds=KINDS)
    assert sorted(p.name for p in site.iterdir()) == ["e.tar", "haversack.toml"]
    assert (site / "e.tar").read_text() == "mine"


def test_a_dry_run_looks_and_writes_nothing(tmp_path: Path) -> None:
    """It tells what would be declared."""
    archive, site = tmp_path / "e.tar", tmp_path / "site"
    archive.write_bytes(tarred(pixi_pack(tmp_path)))
    assert adopt(archive, site, kinds=KINDS, dry_run=True).targets == ("linux-x86_64-glibc2.34-py312",)
    assert not site.exists()
