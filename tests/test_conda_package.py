"""Reading conda packages: sound ones pass whole, and every way of lying is noticed."""

from __future__ import annotations

import asyncio
import base64
import bz2
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import conda_package_handling.api  # type: ignore[import-untyped]
import conda_package_streaming.package_streaming as streaming  # type: ignore[import-untyped]
import pytest
import urllib3
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from rattler import BuildString, Gateway, GenericVirtualPackage, PackageName, Subdir, Version, solve
from rattler.config import Config
from rattler.install import install

from haversack.conda import archive, package
from haversack.conda.halves import BOMB_FLOOR, BOMB_SLACK
from haversack.errors import SpaceError
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from tests.support.channel import ChannelServer
from tests.support.conda import (
    PLACEHOLDER,
    Content,
    Member,
    Mode,
    Package,
    conda_parts,
    make_conda,
    pack_conda,
    tar_of,
    write_channel,
    zip_of,
    zst_of,
)
from tests.support.stack import GLIBC, SUBDIR, python_package, real_stack

NAME = "demo-1.0-0.conda"
OLD = "demo-1.0-0.tar.bz2"
BOTH = pytest.mark.parametrize("filename", [NAME, OLD])
INDEX: dict[str, Any] = {
    "name": "demo",
    "version": "1.0",
    "build": "0",
    "build_number": 0,
    "depends": ["other >=1"],
    "subdir": "linux-64",
}
SCRIPT = f"#!{PLACEHOLDER}/bin/python\n".encode()
FILES: dict[str, Content] = {
    "bin/demo": (SCRIPT, 0o755),
    "lib/libdemo.so": b"\x7fELF" + PLACEHOLDER.encode() + b"\0" * 50,
    "share/demo/data.txt": b"some data\n" * 50,
    "share/demo/empty": b"",
}
LINKS = {"bin/demo-1": "demo", "share/there": "../lib/libdemo.so", "share/dangling": "demo/not-here"}
PREFIXED: dict[str, Mode] = {"bin/demo": "text", "lib/libdemo.so": "binary"}


def parts(**changed: Any) -> tuple[list[Member], list[Member]]:
    """Both halves of the sound demo package."""
    given_: dict[str, Any] = {"files": FILES, "links": LINKS, "prefixed": PREFIXED, **changed}
    return conda_parts(INDEX, given_["files"], given_["links"], prefixed=given_["prefixed"])


def artifact(filename: str, **changed: Any) -> Artifact:
    """The demo package as a lock names it."""
    facts = {"subdir": "linux-64", "record": {"build": "0"}}
    made = Artifact("conda", "demo", "1.0", filename, digest_of(b""), None, "path:x", facts=facts)
    return replace(made, **changed)


def look(
    data: bytes | BinaryIO, filename: str = NAME, **changed: Any
) -> tuple[dict[str, Any], list[Finding]]:
    """What is read of some bytes."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    return package.inspect(file, artifact(filename, **changed))


def codes(findings: Sequence[Finding]) -> list[str]:
    """The codes of the findings that block."""
    return [finding.code for finding in findings if finding.blocking]


def told(data: bytes, filename: str = NAME, **changed: Any) -> list[str]:
    """Findings as text, without the name of the package."""
    _, findings = look(data, filename, **changed)
    assert all(finding.blocking and finding.remedy for finding in findings)
    return [f"{f.code} {f.subject.removeprefix(filename).removeprefix(': ')} {f.message}" for f in findings]


def packed(
    filename: str = NAME,
    *,
    add: Sequence[Member] = (),
    drop: Sequence[str] = (),
    listed: Mapping[str, Any] | None = None,
    info: Mapping[str, bytes] | None = None,
) -> bytes:
    """The demo package with members added and dropped, lines of paths.json changed, texts of info replaced."""
    about, payload = parts()
    payload = [*(member for member in payload if member.name not in drop), *add]
    texts = {member.name: member for member in about}
    if listed is not None:
        data = json.loads(texts["info/paths.json"].data)
        rows = {row["_path"]: row for row in data["paths"]}
        for name, change in listed.items():
            rows[name] = {**rows.get(name, {"_path": name, "path_type": "hardlink"}), **change}
        data["paths"] = list(rows.values())
        texts["info/paths.json"] = Member("info/paths.json", json.dumps(data).encode())
    for name, content in (info or {}).items():
        texts[name] = Member(name, content)
    return pack_conda(filename, list(texts.values()), payload)


def halves(info: bytes | None = None, payload: bytes | None = None, **more: bytes) -> bytes:
    """The demo package as a zip file of given halves, already compressed."""
    about, files = parts()
    return zip_of(
        {
            "metadata.json": b'{"conda_pkg_format_version": 2}',
            "pkg-demo-1.0-0.tar.zst": zst_of(files) if payload is None else payload,
            "info-demo-1.0-0.tar.zst": zst_of(about) if info is None else info,
            **more,
        }
    )


# Sound packages


@BOTH
def test_a_sound_package_passes(filename: str) -> None:
    """Facts are what the bytes say, and nothing is found in either format."""
    facts, findings = look(packed(filename), filename)
    assert findings == []
    about, payload = parts()
    assert facts == {
        "files": len(FILES) + len(LINKS),
        "unpacked": sum(len(member.data) for member in [*about, *payload]),
        "placeholder": 255,
    }


def test_both_formats_and_every_way_to_open_them_tell_the_same(tmp_path: Path) -> None:
    """A file under its digest, one of another name, one that was deleted and bytes in memory are read alike."""
    data = packed()
    wanted = look(data)
    assert look(packed(OLD), OLD) == wanted
    place = tmp_path / digest_of(data).removeprefix("sha256:")
    place.write_bytes(data)
    with place.open("rb") as file:
        assert look(file) == wanted
        place.write_bytes(b"other bytes, in the same file")
        place.write_bytes(data)
        place.rename(tmp_path / "renamed")
        assert look(file) == wanted
        place.write_bytes(b"another file under the old name")
        assert look(file) == wanted
    with tempfile.TemporaryFile() as unnamed:
        unnamed.write(data)
        assert look(unnamed) == wanted


@BOTH
@pytest.mark.parametrize("script", ["post-link", "pre-link", "pre-unlink"])
def test_link_scripts_are_told(script: str, filename: str) -> None:
    """A package with a link script says so, for Unix and for Windows."""
    files: dict[str, Content] = {
        f"bin/.demo-{script}.sh": b"true\n",
        "bin/.demo-post-link.txt": b"no script\n",
    }
    for extra in ({}, {f"Scripts/.demo-{script}.bat": b"rem\n"}):
        data = pack_conda(filename, *parts(files={**files, **extra}, links={}, prefixed={}))
        facts, findings = look(data, filename)
        assert (facts["scripts"], findings) == ([script], [])


def test_the_shortest_binary_placeholder_counts() -> None:
    """Text has room for any prefix, so only binaries limit it."""
    assert "placeholder" not in look(pack_conda(NAME, *parts(prefixed={"bin/demo": "text"})))[0]
    short = {"prefix_placeholder": "/opt/short", "file_mode": "binary"}
    assert look(packed(listed={"share/demo/empty": short}))[0]["placeholder"] == len("/opt/short")


@BOTH
def test_an_old_package_needs_no_paths_json(filename: str) -> None:
    """Packages of before 2017 list their files without hashes, and their prefixes in has_prefix."""
    about, payload = conda_parts(INDEX, FILES, LINKS, prefixed=PREFIXED, legacy=True)
    facts, findings = look(pack_conda(filename, about, payload), filename)
    assert (findings, facts["placeholder"], facts["files"]) == ([], 255, 7)
    prefixes = {
        b"bin/demo\n": None,
        b'"/opt/a b" binary "lib/libdemo.so"\n': len("/opt/a b"),
        b"/opt/ab binary lib/libdemo.so\n/opt/abc binary bin/demo\n": len("/opt/ab"),
    }
    for text, room in prefixes.items():
        about = [replace(m, data=text) if m.name == "info/has_prefix" else m for m in about]
        facts, findings = look(pack_conda(filename, about, payload), filename)
        assert (findings, facts.get("placeholder")) == ([], room)
    findings = look(pack_conda(filename, about, payload[1:]), filename)[1]
    assert [f.message for f in findings] == ["it is listed, and not in the package"]
    about = [replace(m, data=b"one two\n") if m.name == "info/has_prefix" else m for m in about]
    assert codes(look(pack_conda(filename, about, payload), filename)[1]) == ["conda-invalid"]


def test_a_hotfixed_dependency_is_no_error() -> None:
    """The record of a channel may ask for other dependencies than the package was built with."""
    record = {"build": "0", "depends": ["other >=2"], "constrains": ["third"]}
    assert look(packed(), facts={"subdir": "linux-64", "record": record})[1] == []


@BOTH
def test_hard_links_within_a_package_are_files(filename: str) -> None:
    """Old build tools packed files that were hard links of each other as links in the tar."""
    twin = Member("share/twin", kind=tarfile.LNKTYPE, link="share/demo/data.txt")
    said = {row["_path"]: row for row in json.loads(parts()[0][4].data)["paths"]}["share/demo/data.txt"]
    data = packed(filename, add=[twin], listed={"share/twin": {**said, "_path": "share/twin"}})
    facts, findings = look(data, filename)
    assert (findings, facts["files"]) == ([], 8)
    wrong = packed(filename, add=[twin], listed={"share/twin": {"sha256": "0" * 64}})
    assert told(wrong, filename) == ["conda-paths share/twin its sha256 is not the one that is listed"]
    away = replace(twin, link="share/later")
    assert "path-unsafe" in told(packed(filename, add=[away], listed={}), filename)[0]


@BOTH
def test_folders_need_not_be_listed(filename: str) -> None:
    """Members that are folders may be there or not; one that is listed must be."""
    folder = Member("share/demo/", kind=tarfile.DIRTYPE, mode=0o755)
    assert told(packed(filename, add=[folder]), filename) == []
    listed = {"share/void": {"path_type": "directory"}}
    void = Member("share/void/", kind=tarfile.DIRTYPE, mode=0o755)
    assert told(packed(filename, add=[void], listed=listed), filename) == []
    assert told(packed(filename, listed=listed), filename) == [
        "conda-paths share/void it is listed, and not in the package"
    ]


def test_many_threads_read_at_once() -> None:
    """Eight threads get what one gets."""
    both = {NAME: packed(), OLD: packed(OLD)}
    wanted = look(both[NAME])
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda name: look(both[name], name), [NAME, OLD] * 32):
            assert found == wanted


# What contradicts itself


@BOTH
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": "0" * 64}, "its sha256 is not the one that is listed"),
        ({"size_in_bytes": 1}, "it has 500 bytes, 1 are listed"),
        ({"path_type": "softlink"}, "it is listed as a link and is a file"),
    ],
)
def test_a_file_that_is_not_as_listed(change: dict[str, Any], said: str, filename: str) -> None:
    """A file that differs from its line in paths.json is found."""
    data = packed(filename, listed={"share/demo/data.txt": change})
    assert told(data, filename) == [f"conda-paths share/demo/data.txt {said}"]


@BOTH
def test_files_missing_and_too_many_are_all_told(filename: str) -> None:
    """Every file that is not listed and every line without a file is found, not only the first."""
    data = packed(filename, add=[Member("x/one"), Member("x/two")], drop=["bin/demo-1", "share/demo/empty"])
    assert sorted(told(data, filename)) == [
        "conda-paths bin/demo-1 it is listed, and not in the package",
        "conda-paths share/demo/empty it is listed, and not in the package",
        "conda-paths x/one it is in the package, and the package does not list it",
        "conda-paths x/two it is in the package, and the package does not list it",
    ]


@pytest.mark.parametrize("key", ["name", "version", "build", "subdir"])
def test_a_package_that_is_another(key: str) -> None:
    """A package whose own metadata names another one than its record is refused."""
    data = packed(info={"info/index.json": json.dumps({**INDEX, key: "other"}).encode()})
    assert [line.split(",")[0] for line in told(data)] == [
        f"conda-invalid info/index.json its {key} is 'other'"
    ]


@BOTH
@pytest.mark.parametrize("name", ["index.json", "paths.json"])
@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"paths": 1}'])
def test_metadata_that_is_none(name: str, text: bytes, filename: str) -> None:
    """Texts that are not the JSON they should be are findings, one a text or one a contradiction."""
    found = told(packed(filename, info={f"info/{name}": text}), filename)
    assert found
    assert all(line.startswith(f"conda-invalid info/{name} ") for line in found)


@pytest.mark.parametrize(
    "row",
    [
        1,
        {},
        {"_path": 1},
        {"_path": "a", "path_type": "device"},
        {"_path": "a", "sha256": "0"},
        {"_path": "a", "size_in_bytes": "1"},
        {"_path": "a", "prefix_placeholder": 5, "file_mode": "text"},
        {"_path": "a", "prefix_placeholder": "/opt"},
        {"_path": "a", "file_mode": "other"},
    ],
)
def test_lines_of_no_known_form(row: Any) -> None:
    """A line of paths.json that nobody could use is told by its number."""
    text = json.dumps({"paths": [row], "paths_version": 1}).encode()
    found = told(packed(info={"info/paths.json": text}))
    assert "conda-invalid info/paths.json its path 0 is of no known form" in found


def test_a_file_listed_twice() -> None:
    """paths.json that says two things of a file is refused."""
    row = {"_path": "bin/demo", "path_type": "hardlink"}
    text = json.dumps({"paths": [row, row], "paths_version": 1}).encode()
    assert "conda-paths bin/demo paths.json lists it twice" in told(packed(info={"info/paths.json": text}))


def test_without_any_metadata() -> None:
    """A package that does not describe itself is no package."""
    assert told(pack_conda(NAME, [], [])) == [
        "conda-invalid info/index.json the package does not hold it",
        "conda-invalid info/paths.json the package does not hold it",
    ]


def test_members_in_the_wrong_half() -> None:
    """Metadata among the files would replace the metadata, and a file among the metadata is nobody's."""
    about, payload = parts()
    data = pack_conda(NAME, [*about, Member("bin/stray")], [*payload, Member("info/index.json", b"{}")])
    assert told(data) == [
        "conda-invalid bin/stray a file stands among what describes the package",
        "conda-invalid info/index.json what describes the package stands among its files",
    ]


@BOTH
def test_metadata_that_is_a_link(filename: str) -> None:
    """What describes a package is files, so that no reader is led elsewhere."""
    about, payload = parts()
    data = pack_conda(filename, [*about, Member("info/recipe.json", link="../../x")], payload)
    assert told(data, filename) == [
        "conda-invalid info/recipe.json what describes the package is no plain file"
    ]


# Names


@BOTH
@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "a\\b", "C:/x", "a//b", "tab\tbed"])
def test_names_that_leave_their_folder(name: str, filename: str) -> None:
    """No such name passes, whoever notices it first."""
    found = told(packed(filename, add=[Member(name, b"x")]), filename)
    assert any(line.startswith(("path-unsafe", "conda-invalid")) for line in found), found


@BOTH
def test_names_without_end(filename: str) -> None:
    """A name that no system can hold ends the reading, and is not printed."""
    for member in (Member("n/" * 3000 + "n"), Member("link", link="n/" * 3000)):
        (found, *_) = told(packed(filename, add=[member]), filename)
        assert found.startswith("conda-invalid  a name in it has 600")


@BOTH
def test_a_member_twice(filename: str) -> None:
    """Two members of one name are two answers to what the file is."""
    again = Member("share/demo/data.txt", b"some data\n" * 50)
    found = told(packed(filename, add=[again]), filename)
    assert found == ["conda-invalid share/demo/data.txt the package holds it twice"]


@BOTH
@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(kind: bytes, filename: str) -> None:
    """Nothing but files, links and folders is installed."""
    found = told(packed(filename, add=[Member("dev/null", kind=kind)]), filename)
    assert found == ["path-unsafe dev/null it is a device or a pipe"]


@BOTH
@pytest.mark.parametrize(
    ("links", "said"),
    [
        ({"a": "/etc"}, "which is no path within the package"),
        ({"a": "..\\x"}, "which is no path within the package"),
        ({"a/b": "../../x"}, "which is out of the package"),
        ({"s/d": "..", "e": "s/d/../x"}, "which is out of the package"),
        ({"a": "b", "b": "a"}, "round in a circle"),
    ],
)
def test_links_that_lead_out(links: dict[str, str], said: str, filename: str) -> None:
    """A link that leads out of the package, be it through other links, is refused."""
    data = pack_conda(filename, *parts(links=links, prefixed={}))
    found = told(data, filename)
    assert found
    assert all(line.startswith("path-unsafe") for line in found)
    assert said in found[-1]


@BOTH
def test_a_file_below_a_link(filename: str) -> None:
    """A file whose folder is a link of the package would be written somewhere else."""
    data = pack_conda(filename, *parts(files={"lib64/x": b"x"}, links={"lib64": "lib"}, prefixed={}))
    assert told(data, filename) == ["path-unsafe lib64/x it would be written through the link 'lib64'"]


@pytest.mark.parametrize(
    ("subdir", "noticed"),
    [("linux-64", []), ("osx-arm64", [True]), ("win-64", [True]), ("noarch", [False])],
)
def test_names_that_differ_in_case(subdir: str, noticed: list[bool]) -> None:
    """They are told where a file system may ignore case, and block a package of a system that does."""
    index = {**INDEX, "subdir": subdir}
    for other, blocks in {b"2": noticed, b"1": [False for _ in noticed]}.items():
        data = pack_conda(NAME, *conda_parts(index, {"share/A": b"1", "share/a": other}))
        _, findings = look(data, facts={"subdir": subdir, "record": {"build": "0"}})
        assert [(f.code, f.blocking) for f in findings] == [("name-clash", each) for each in blocks]


def test_names_that_windows_cannot_hold() -> None:
    """A package for Windows has none, one for Linux may."""
    for subdir, wanted in {"win-64": ["path-unsafe"], "linux-64": []}.items():
        data = pack_conda(NAME, *conda_parts({**INDEX, "subdir": subdir}, {"man/a::b.3": b"x"}))
        assert codes(look(data, facts={"subdir": subdir, "record": {"build": "0"}})[1]) == wanted


def test_a_package_of_an_impossible_name() -> None:
    """A name that is no file name, or of no format, is refused before anything is read."""
    for filename in ("../demo-1.0-0.conda", "demo-1.0-0.zip", ""):
        assert codes(look(packed(), filename)[1]) == ["conda-invalid"]


# The archive


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_package_that_is_cut_short(share: float, filename: str) -> None:
    """Wherever it ends, the one finding about it is that it cannot be read."""
    data = packed(filename)
    assert codes(look(data[: int(len(data) * share)], filename)[1])[0] == "conda-invalid"


@BOTH
def test_what_is_no_package(filename: str) -> None:
    """Garbage, the other format and a plain zip file are each one finding."""
    other = OLD if filename == NAME else NAME
    for data in (b"", b"x", os.urandom(5000), packed(other), zip_of({"a": b"b"}), bz2.compress(b"x" * 5000)):
        found = told(data, filename)
        assert len(found) == 1
        assert found[0].startswith("conda-invalid")


def test_the_outside_of_a_conda_file() -> None:
    """Its zip file has the three members of its name, stored, and says format version 2."""
    about, payload = parts()
    whole = zst_of(payload)
    other = {"metadata.json": b"{}", "pkg-other-1.0-0.tar.zst": b"", "info-other-1.0-0.tar.zst": b""}
    wrong = {
        "it holds 'metadata.json', 'pkg-other-1.0-0.tar.zst'": zip_of(other),
        "it holds 'metadata.json', 'pkg-demo-1.0-0.tar.zst'": halves(**{"more.txt": b"x"}),
        "metadata.json says format version 3": halves(
            **{"metadata.json": b'{"conda_pkg_format_version": 3}'}
        ),
        "metadata.json says no format version": halves(**{"metadata.json": b"[]"}),
        "bytes that no member owns stand before": b"#!/bin/sh\n" + halves(),
        "it is not a readable zip file": halves()[:-1],
        "bytes follow the end of the zip file": halves() + b"more",
        "bytes that nobody reads follow the end of pkg-": halves(payload=whole + b"more"),
        "bytes that nobody reads follow the end of info-": halves(info=zst_of(about) + zst_of(about)),
        "pkg-demo-1.0-0.tar.zst is cut short": halves(payload=b""),
        "info-demo-1.0-0.tar.zst is cut short": halves(info=zst_of(about)[:-1]),
        "one half of it is not compressed by zstd": halves(payload=bz2.compress(tar_of(payload))),
    }
    for said, data in wrong.items():
        (found,) = told(data)
        assert found.startswith(f"conda-invalid  {said}"), (said, found)
    raw = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(halves())) as sound,
        zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed_,
    ):
        for name in sound.namelist():
            packed_.writestr(name, sound.read(name))
    assert told(raw.getvalue()) == ["conda-invalid  metadata.json is compressed, not stored"]


def test_several_streams_of_bzip2_are_one() -> None:
    """Parallel bzip2 writes several streams; what is no further stream is refused."""
    data = tar_of([*parts()[0], *parts()[1]])
    streams = bz2.compress(data[:3000]) + bz2.compress(data[3000:])
    assert told(streams, OLD) == []
    assert codes(look(streams + b"more", OLD)[1]) == ["conda-invalid"]
    assert codes(look(bz2.compress(data + b"x" * 512), OLD)[1]) == ["conda-invalid"]


# Bombs


@BOTH
def test_a_bomb_is_refused_before_it_goes_off(filename: str) -> None:
    """A package that unpacks to far more than it may is not read further, and takes no memory to speak of."""
    bomb = Member("share/zeros", bytes(BOMB_FLOOR + 1))
    data = packed(filename, add=[bomb])
    del bomb
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        found = codes(look(data, filename)[1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == ["conda-bomb"]
    assert peak < 16_000_000


@BOTH
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_bomb_in_the_heads_of_a_tar(kind: bytes, filename: str) -> None:
    """An extended header of any size is not taken into memory, which rattler and tarfile both would do."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = kind, 300 * 1024 * 1024
    raw = head.tobuf(tarfile.GNU_FORMAT) + b"n" * head.size + tar_of([Member("x")])
    if filename == OLD:
        data = bz2.compress(raw, 1)
    else:
        data = halves(payload=zstandard.ZstdCompressor().compress(raw))
    del raw
    assert codes(look(data, filename)[1])[0] in {"conda-bomb", "conda-invalid"}


def test_what_a_bz2_hides_beside_its_files_is_bounded() -> None:
    """Neither an extended header of more than a mebibyte nor endless zeros after the last file are read."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 2 * 1024 * 1024
    raw = head.tobuf(tarfile.GNU_FORMAT) + b"n" * head.size + tar_of([Member("x")])
    assert f"says that it goes on for {head.size} bytes" in told(bz2.compress(raw), OLD)[0]
    sound = tar_of([member for half in parts() for member in half])
    zeros = bz2.compress(bytes(BOMB_SLACK * BOMB_FLOOR))
    assert codes(look(bz2.compress(sound) + zeros, OLD)[1]) == ["conda-bomb"]


def test_many_tiny_files_are_no_bomb() -> None:
    """Heads of a tar compress to nothing, at a ratio that no content has."""
    files: dict[str, Content] = {f"share/{number}": b"x = %d\n" % number for number in range(3000)}
    facts, findings = look(pack_conda(NAME, *conda_parts(INDEX, files)))
    assert (facts["files"], findings) == (3000, [])


# Damage


@pytest.mark.parametrize("filename", [NAME, OLD])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_never_an_exception(data: st.DataObject, filename: str) -> None:
    """Whatever bytes change, are cut out or put in, the answer is findings or the same facts."""
    sound = packed(filename)
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "put"])):
            case "flip":
                damaged[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del damaged[at : at + data.draw(st.integers(1, 600))]
            case _:
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=64))
        if not damaged:
            break
    facts, findings = look(bytes(damaged), filename)
    if not codes(findings):
        assert facts == look(sound, filename)[0]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_within_the_tar_is_never_an_exception(data: st.DataObject) -> None:
    """The same below compression, where check sums of the archive do not protect the reader."""
    about, payload = parts()
    tar = bytearray(tar_of([*about, *payload]))
    for _ in range(data.draw(st.integers(1, 4))):
        tar[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))
    look(bz2.compress(tar), OLD)
    tar = bytearray(tar_of(payload))
    for _ in range(data.draw(st.integers(1, 4))):
        tar[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))

    look(halves(payload=zstandard.ZstdCompressor().compress(bytes(tar))))


def test_every_flipped_byte_of_a_file_is_found() -> None:
    """A change in what is installed never passes, in either format, whatever bit of it changed."""
    about, payload = parts()
    place = next(number for number, member in enumerate(payload) if member.name == "share/demo/data.txt")
    for at in range(0, 500, 41):
        wrong = bytearray(payload[place].data)
        wrong[at] ^= 1
        members = [*payload]
        members[place] = replace(payload[place], data=bytes(wrong))
        for filename in (NAME, OLD):
            assert codes(look(pack_conda(filename, about, members), filename)[1]) == ["conda-paths"]


# Frames


@pytest.mark.parametrize("size", [0, 300, 200_000, 5_000_000])
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("level", [-5, 3, 12])
def test_every_form_of_zstd_comes_out_as_it_was(size: int, stated: bool, level: int) -> None:
    """Whatever blocks, windows and sizes a frame has, small or large, its tar is read to the byte."""
    content = (os.urandom(size // 20) + bytes(size // 20)) * 5 + os.urandom(size // 2)
    about, payload = parts(files={**FILES, "share/content": content})
    wanted = look(pack_conda(OLD, about, payload), OLD)
    assert wanted[1] == []
    for window in (None, 10, 17, 23):
        kind = zstandard.ZstdCompressionParameters.from_level(
            level,
            write_content_size=stated,
            write_checksum=not stated,
            **({"window_log": window} if window else {}),
        )
        tar = tar_of(payload)
        compressor = zstandard.ZstdCompressor(compression_params=kind).compressobj(
            **({"size": len(tar)} if stated else {})
        )
        packed_ = compressor.compress(tar) + compressor.flush()
        assert look(halves(info=zst_of(about), payload=packed_)) == wanted


@pytest.mark.parametrize("size", [1000, 6_000_000])
@pytest.mark.parametrize("change", [-512, -1, 1, 512])
def test_a_frame_that_lies_about_its_size(size: int, change: int) -> None:
    """A frame with more or less in it than it says is damaged, and what is too much is written nowhere."""
    about, payload = parts(files={**FILES, "share/content": os.urandom(size)})
    tar = tar_of(payload)
    frame = bytearray(zst_of(payload))
    length = {2: 4, 1: 2}[frame[4] >> 6]
    start = 5 + (1 - (frame[4] >> 5 & 1))
    less = 256 if length == 2 else 0
    assert int.from_bytes(frame[start : start + length], "little") + less == len(tar)
    frame[start : start + length] = (len(tar) + change - less).to_bytes(length, "little")
    (found,) = told(halves(info=zst_of(about), payload=bytes(frame)))[:1]
    assert found.startswith("conda-invalid  it is damaged: ")


@pytest.mark.parametrize("size", [0, 5_000_000])
def test_what_a_frame_hides_behind_its_size(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second tar behind the size that a frame tells gets out of the folder for temporary files neither."""
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    about, payload = parts(files={**FILES, "share/content": os.urandom(size)})
    tar = tar_of(payload)
    for evil in ([Member("a", link=str(target)), Member("a/b", b"x")], [Member("info", link="/dev/zero")]):
        frame = bytearray(zstandard.ZstdCompressor().compress(tar + bytes(512) + tar_of(evil)))
        start, length = 5 + (1 - (frame[4] >> 5 & 1)), {2: 4, 1: 2}[frame[4] >> 6]
        frame[start : start + length] = (len(tar) - (256 if length == 2 else 0)).to_bytes(length, "little")
        found = told(halves(info=zst_of(about), payload=bytes(frame)))
        assert found[0].startswith("conda-invalid  it is damaged: ")
        assert (list(scratch.iterdir()), list(target.iterdir())) == ([], [])


def test_large_files_are_never_held_whole(tmp_path: Path) -> None:
    """A file of 150 MiB is read in less memory than it has, in either format."""
    about, payload = parts(files={**FILES, "lib/big": (os.urandom(1 << 20) + bytes(2 << 20)) * 50})
    path = tmp_path / NAME
    path.write_bytes(pack_conda(NAME, about, payload))
    code = (
        "import sys; from haversack.conda import archive; found = []\n"
        "with open(sys.argv[1], 'rb') as file: archive.read(file, 'demo-1.0-0.conda', found)\n"
        "print(len(found), open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == len(about) + len(payload)
    assert kilobytes < 120_000
    about, payload = parts(files={**FILES, "lib/big": bytes(60 << 20)})
    data = pack_conda(OLD, about, payload)
    tracemalloc.start()
    try:
        assert told(data, OLD) == []
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 6_000_000])
def test_nothing_is_written_where_a_package_wants_it(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links out of it, files behind them and names that lead out reach no disk; nothing stays behind."""
    scratch, target = tmp_path / "scratch", tmp_path / "target"
    scratch.mkdir()
    target.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    evil = [
        Member("a", link=str(target)),
        Member("a/b", b"x"),
        Member("../../c", b"x"),
        Member(str(target / "d"), b"x"),
        Member("share/noise", os.urandom(size)),
        Member("share/locked/", kind=tarfile.DIRTYPE, mode=0),
        Member("share/locked/unreadable", b"x", mode=0),
    ]
    found = [line.split(" ")[:2] for line in told(packed(add=evil)) if line.startswith("path-unsafe")]
    assert found == [["path-unsafe", name] for name in ("a", "a/b", "../../c", f"{target}/d")]
    assert (list(scratch.iterdir()), list(target.iterdir())) == ([], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "target"]


def test_no_room_to_look_into_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is large says how much room it needs, and that it is not there; a small one needs none."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    assert told(packed()) == []
    with pytest.raises(SpaceError, match="bytes are needed to look into a package, and 5000000 are free"):
        look(packed(add=[Member("share/noise", os.urandom(6_000_000))]))


def test_readers_must_agree_about_extended_headers() -> None:
    """A member of which rattler makes something else than we do, under a head that is not plain, is refused."""
    long = "share/" + "n" * 120
    assert told(packed(add=[Member(long, b"x")], listed={long: {}})) == []
    odd = Member(long, kind=tarfile.CONTTYPE)
    assert told(packed(add=[odd], listed={long: {}})) == [
        "conda-invalid  not all readers find the same files in it"
    ]


# The fixtures are real


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real stack as a channel."""
    return real_stack(tmp_path_factory.mktemp("channel"))


def packages(channel: Path) -> list[Path]:
    """The files of a channel that are packages."""
    return sorted(path for path in channel.glob("*/*") if path.name.endswith((".conda", ".tar.bz2")))


def records(channel: Path) -> dict[str, dict[str, Any]]:
    """The records of a channel by file name."""
    found: dict[str, dict[str, Any]] = {}
    for path in channel.glob("*/repodata.json"):
        data = json.loads(path.read_text())
        found |= {**data["packages"], **data["packages.conda"]}
    return found


def test_the_stack_is_sound(channel: Path) -> None:
    """Every package of the real stack passes, one that rattler-build made among them."""
    said = records(channel)
    seen = {}
    for path in packages(channel):
        if path.name in said:
            record = said[path.name]
            facts = {"subdir": record["subdir"], "record": record}
            with path.open("rb") as file:
                seen[record["name"]], findings = package.inspect(
                    file,
                    artifact(path.name, name=record["name"], version=record["version"], facts=facts),
                )
            assert findings == [], path.name
    assert seen["where"]["placeholder"] == 255
    assert seen["linked"]["scripts"] == ["post-link"]
    assert seen["python"]["files"] > 500
    assert "built" in seen


def test_independent_readers_agree(channel: Path, tmp_path: Path) -> None:
    """conda-package-streaming and conda-package-handling read our packages, and find what we find in them."""
    for path in packages(channel):
        names = [
            member.name
            for component in (streaming.CondaComponent.pkg, streaming.CondaComponent.info)
            for _, member in streaming.stream_conda_component(str(path), component=component)
            if not path.name.endswith(".tar.bz2") or component is streaming.CondaComponent.pkg
        ]
        entries: list[archive.Entry] = []
        with path.open("rb") as file:
            archive.read(file, path.name, entries)
        assert sorted(entry.name for entry in entries) == sorted(names)
        out = tmp_path / path.name
        conda_package_handling.api.extract(str(path), str(out))
        for entry in entries:
            if entry.kind == "file":
                assert digest_of((out / entry.name).read_bytes()) == f"sha256:{entry.sha256}"
            elif entry.kind == "link":
                assert str((out / entry.name).readlink()) == entry.target


def test_what_conda_itself_repacked_is_sound(channel: Path, tmp_path: Path) -> None:
    """A package that conda's own library turned into the other format says the same."""
    for name, suffix in {"where": ".tar.bz2", "clobber-b": ".conda"}.items():
        path = next(path for path in packages(channel) if path.name.startswith(name))
        record = records(channel)[path.name]
        made = conda_package_handling.api.transmute(str(path), suffix, out_folder=str(tmp_path))
        assert not made, made
        again = next(tmp_path.glob(f"{name}*"))
        facts = {"subdir": record["subdir"], "record": record}
        looks = []
        for one in (path, again):
            with one.open("rb") as file:
                looks.append(
                    package.inspect(
                        file, artifact(one.name, name=name, version=record["version"], facts=facts)
                    )
                )
        assert looks[0][1] == looks[1][1] == []
        assert looks[0][0]["files"] == looks[1][0]["files"]


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    """A fixture made twice is one blob."""
    for suffix in (".conda", ".tar.bz2"):
        made = [
            make_conda(tmp_path / where, "demo", "1.0", files=FILES, links=LINKS, suffix=suffix)
            for where in ("a", "b")
        ]
        assert made[0].path.read_bytes() == made[1].path.read_bytes()
        assert made[0].record == made[1].record


def test_a_channel_says_what_it_is_told_to(tmp_path: Path) -> None:
    """Hotfixes are in the records alone, yanked packages lose theirs, and each format has its table."""
    new = make_conda(tmp_path / "made", "new", "1.0", depends=["old"])
    old = make_conda(tmp_path / "made", "old", "1.0", suffix=".tar.bz2")
    gone = make_conda(tmp_path / "made", "gone", "1.0", noarch="generic")
    channel = write_channel(
        tmp_path / "channel",
        [new, old],
        patch=lambda record: {**record, "depends": []},
        removed=[gone],
        zst=True,
    )
    linux = json.loads((channel / "linux-64" / "repodata.json").read_text())
    noarch = json.loads((channel / "noarch" / "repodata.json").read_text())
    assert linux["packages.conda"] == {new.filename: {**new.record, "depends": []}}
    assert linux["packages"] == {old.filename: {**old.record, "depends": []}}
    assert (noarch["packages.conda"], noarch["removed"]) == ({}, [gone.filename])
    assert (channel / "noarch" / gone.filename).read_bytes() == gone.path.read_bytes()
    assert (channel / "noarch" / "repodata.json.zst").exists()


def test_the_stack_installs_and_runs(channel: Path, tmp_path: Path) -> None:
    """Rattler solves the stack over HTTP and installs it; its Python, its scripts and its binary know their prefix."""
    prefix = tmp_path / "a rather long way down" / "env"
    virtual = {"__unix": "0", "__linux": "5", "__glibc": GLIBC}

    async def build(url: str) -> list[str]:
        found = await solve(
            [url],
            ["everything"],
            gateway=Gateway(),
            platforms=[Subdir(SUBDIR), Subdir("noarch")],
            virtual_packages=[
                GenericVirtualPackage(PackageName(n), Version(v), BuildString("0"))
                for n, v in virtual.items()
            ],
        )
        await install(
            found,
            target_prefix=prefix,
            cache_dir=tmp_path / "cache",
            platform=Subdir(SUBDIR),
            config=Config.from_toml("allow-hard-links = false"),
            show_progress=False,
        )
        return sorted(record.name.normalized for record in found)

    with ChannelServer(channel) as server:
        assert "needs-cuda" not in asyncio.run(build(server.url))

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(prefix / "bin" / words[0]), *words[1:]], env={}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("where") == run("where-text") == run("where-link") == str(prefix)
    code = "import sys, ssl, ctypes, packaging; print(sys.prefix, packaging.__file__.startswith(sys.prefix))"
    assert run("python", "-c", code) == f"{prefix} True"
    assert run("python", "-c", "import sysconfig; print(sysconfig.get_config_var('prefix'))") == str(prefix)
    assert run("tqdm", "--version")
    assert not (prefix / "share" / "post-link-ran").exists()


def test_the_python_package_can_be_made_alone(tmp_path: Path) -> None:
    """It is of this machine, wants its glibc, and says where its build prefix stands."""
    made: Package = python_package(tmp_path)
    assert made.path == tmp_path / SUBDIR / made.filename
    assert made.record["depends"] == ["__unix", f"__glibc >={GLIBC}"]


def test_a_channel_server_behaves_and_misbehaves(tmp_path: Path) -> None:
    """Range, ETag, passwords, 404, and each fault, as many times as asked for."""
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch" / "file").write_bytes(b"0123456789")
    word = base64.b64encode(b"me:secret").decode()
    with (
        ChannelServer(tmp_path, username="me", password="secret") as server,
        urllib3.PoolManager(retries=False, headers={"Authorization": f"Basic {word}"}) as pool,
    ):
        url = f"{server.url}noarch/file"

        def ask(**headers: str) -> urllib3.BaseHTTPResponse:
            return pool.request("GET", url, headers={**pool.headers, **headers})

        plain = ask()
        assert (plain.status, plain.data) == (200, b"0123456789")
        part = ask(Range="bytes=2-4")
        assert (part.status, part.data) == (206, b"234")
        tag = plain.headers["ETag"]
        for _ in range(2):
            assert (ask(**{"If-None-Match": tag}).status, ask(**{"If-None-Match": '"x"'}).status) == (
                304,
                200,
            )
        assert pool.request("GET", url, headers={}).status == 401
        assert pool.request("GET", f"{server.url}noarch/repodata_shards.msgpack.zst").status == 404
        assert pool.request("GET", f"{server.url}../{tmp_path.name}/noarch/file").status == 404
        down = server.fail(r"/noarch/f.le$", times=2)
        assert [ask().status for _ in range(3)] == [503, 503, 200]
        assert down.hits == 2
        server.fail("file", "drop", times=1)
        with pytest.raises(urllib3.exceptions.ProtocolError):
            ask()
        server.fail("file", "truncate")
        with pytest.raises(urllib3.exceptions.ProtocolError):
            ask()
        server.heal()
        assert ask().status == 200
        assert len(server.asked("noarch/file")) > 5


@BOTH
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("demo-2.0 = demo.cli:main", ""),
        ("demo=demo:App.run", ""),
        ("../../../../evil = a:main", "path-unsafe"),
        ("/etc/evil = a:main", "path-unsafe"),
        ("a\\b = a:main", "path-unsafe"),
        (".. = a:main", "path-unsafe"),
        (" = a:main", "path-unsafe"),
        ("a\nb = a:main", "path-unsafe"),
        ("demo = a", "conda-invalid"),
        ("demo", "conda-invalid"),
        (7, "conda-invalid"),
    ],
)
def test_a_program_has_the_name_of_one(line: Any, code: str, filename: str) -> None:
    """An installation makes a file of each entry point, so that a name that leaves its folder is refused."""
    link = {"noarch": {"type": "python", "entry_points": [line]}, "package_metadata_version": 1}
    found = told(packed(filename, info={"info/link.json": json.dumps(link).encode()}), filename)
    assert [text.split(" ")[:2] for text in found] == ([[code, "info/link.json"]] if code else [])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"{}", 0),
        (b'{"noarch": null}', 0),
        (b'{"noarch": "python"}', 0),
        (b'{"noarch": {"type": "python", "entry_points": null}}', 0),
        (b'{"noarch": {"type": "python", "entry_points": "x"}}', 1),
        (b"[]", 1),
        (b"{", 1),
    ],
)
def test_entry_points_that_are_none(text: bytes, wrong: int) -> None:
    """Only a list of them can be read; without any there is nothing to say."""
    found = told(packed(info={"info/link.json": text}))
    assert [line.split(" ")[0] for line in found] == ["conda-invalid"] * wrong


@BOTH
@pytest.mark.parametrize("name", ["conda-meta/x-1.0-0.json", "Conda-Meta/history"])
def test_what_only_conda_writes_is_in_no_package(name: str, filename: str) -> None:
    """A package that writes into conda-meta would say what is installed."""
    found = told(pack_conda(filename, *parts(files={name: b"{}"}, links={}, prefixed={})), filename)
    assert found == [f"path-unsafe {name} it lies where conda keeps what it knows of the environment"]
