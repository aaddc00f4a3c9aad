"""Records of conda packages, there and back, and what other people's readers make of ours."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard
from rattler import Channel, PackageFormatSelection, SparseRepoData

from haversack.errors import IntegrityError
from haversack.formats import repodata
from haversack.formats.canonical import parse
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from tests.support.conda import make_conda

# Untyped, like the rest of conda's own libraries.
STREAMING: Any = importlib.import_module("conda_package_streaming.package_streaming")
CHANNEL = "https://conda.example.org/conda-forge"
FULL: dict[str, Any] = {
    "arch": "x86_64",
    "build": "h0_0",
    "build_number": 0,
    "constrains": ["other <2"],
    "depends": ["python >=3.11"],
    "license": "MIT",
    "md5": "cd" * 16,
    "name": "tool",
    "noarch": None,
    "platform": "linux",
    "purls": ["pkg:pypi/tool"],
    "python_site_packages_path": "lib/python3.13/site-packages",
    "sha256": "ab" * 32,
    "size": 123,
    "subdir": "linux-64",
    "timestamp": 1_700_000_000_000,
    "track_features": "mkl",
    "version": "1!1.0",
    "fn": "tool-1!1.0-h0_0.conda",
    "url": f"{CHANNEL}/linux-64/tool-1!1.0-h0_0.conda",
    "channel": CHANNEL,
}


def artifact(record: dict[str, Any] = FULL, **changes: Any) -> Artifact:
    """The artifact of a record; a finding fails the test."""
    found = repodata.artifact_of({**record, **changes}, "geo/node")
    assert isinstance(found, Artifact), str(found)
    return found


def finding(**changes: Any) -> Finding:
    """What is wrong with the record after some changes to it."""
    found = repodata.artifact_of({**FULL, **changes}, "geo/node")
    assert isinstance(found, Finding), str(found)
    return found


def test_a_record_comes_back_as_it_was() -> None:
    """Every key that a channel gives is kept, those that nobody knows and those that are null too."""
    told = {**FULL, "unheard_of": {"a": [1, None]}}
    made = artifact(told)
    assert repodata.record_of(made) == told
    assert set(made.facts) == {"channel", "subdir", "record"}
    assert not set(made.facts["record"]) & {
        "name",
        "version",
        "subdir",
        "sha256",
        "size",
        "fn",
        "url",
        "channel",
    }
    assert (made.kind, made.name, made.version, made.size) == ("conda", "tool", "1!1.0", 123)
    assert made.members == ("geo/node",)


def test_what_rattler_reads_comes_back_as_it_was(tmp_path: Path) -> None:
    """A record that went through py-rattler and a lock is still the one that the channel had."""
    kept = {key: value for key, value in FULL.items() if key not in {"fn", "url", "channel", "noarch"}}
    (tmp_path / "repodata.json").write_bytes(repodata.write("linux-64", [{**kept, "fn": FULL["fn"]}]))
    with SparseRepoData(Channel(CHANNEL), "linux-64", tmp_path / "repodata.json") as read:
        (record,) = read.load_all_records(PackageFormatSelection.BOTH)
    again = repodata.record_of(artifact(json.loads(record.to_json())))
    assert {key: value for key, value in again.items() if key not in {"fn", "url", "channel"}} == kept
    assert again["channel"] == CHANNEL


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://me:secret@Conda.example.org/t/tk-1/forge/", "https://conda.example.org/forge"),
        ("https://conda.example.org/t/tk-1/forge/noarch/x.conda?key=1#y", "https://conda.example.org/forge/noarch/x.conda"),
        ("https://conda.example.org:8443/base/t/tk/forge", "https://conda.example.org:8443/base/forge"),
        ("https://conda.example.org/forge/t", "https://conda.example.org/forge/t"),
        ("file:///srv/t/forge/noarch", "file:///srv/t/forge/noarch"),
    ],
)  # fmt: skip
def test_a_url_loses_its_secrets(url: str, plain: str) -> None:
    """User, password, token, query and fragment go; what is only a path stays."""
    assert repodata.plain_url(url) == plain


@pytest.mark.parametrize(
    "url", ["conda-forge", "", "https://", "https://a b/", "https://h\\@evil/", "https://[::1/x", "//host/x"]
)
def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    """The error says nothing of the text, which may hold a password."""
    with pytest.raises(ValueError, match=r"^is not a URL") as caught:
        repodata.plain_url(url)
    assert len(url) < 4 or url not in str(caught.value)


def test_no_secret_reaches_an_artifact() -> None:
    """Neither the origin nor the channel of an artifact holds what a channel's URL held."""
    base = "https://me:hunter2@conda.example.org/t/tk-123/conda-forge"
    made = artifact(url=f"{base}/linux-64/{FULL['fn']}?sig=abc", channel=f"{base}/")
    assert made == artifact()


def test_a_channel_that_is_only_a_name_is_read_off_the_url() -> None:
    """Locks of some tools name channels by their short names, or not at all."""
    assert artifact(channel="conda-forge") == artifact(channel=None) == artifact()


def test_the_file_name_may_stand_in_the_url_alone() -> None:
    """Percent signs of the URL are undone in the name."""
    record = {key: value for key, value in FULL.items() if key != "fn"}
    assert artifact(record, url=f"{CHANNEL}/linux-64/tool-1%211.0-h0_0.conda").filename == FULL["fn"]


def test_capitals_in_a_file_name_are_no_contradiction() -> None:
    """Names of packages have no case, and a few old files are written with capitals."""
    assert artifact(fn="Tool-1!1.0-h0_0.conda").filename == "Tool-1!1.0-h0_0.conda"


@pytest.mark.parametrize("md5", ["", "cd" * 16])
def test_a_package_without_sha256_is_none(md5: str) -> None:
    """Without a sha256 there is a finding; of an md5 it says that it is not enough."""
    found = finding(sha256=None, md5=md5)
    assert found.code == "conda-unhashed"
    assert "tool in geo/node" in found.subject
    assert ("md5" in found.message) is bool(md5)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "abc"},
        {"sha256": 7},
        {"build": "h1_0"},
        {"version": "2.0"},
        {"name": None},
        {"fn": "tool-1!1.0-h0_0.zip"},
        {"fn": "../tool-1!1.0-h0_0.conda"},
        {"fn": "other-1!1.0-h0_0.conda"},
        {"subdir": "../linux-64"},
        {"subdir": "Linux 64"},
        {"subdir": None},
        {"url": None},
        {"url": "tool.conda"},
        {"channel": "https://a b/"},
        {"size": -1},
        {"size": "big"},
        {"build_number": None},
        {"depends": "python"},
        {"depends": [1]},
        {"constrains": {}},
        {"timestamp": "yesterday"},
    ],
)
def test_a_malformed_record_is_a_finding(changes: dict[str, Any]) -> None:
    """Whatever is wrong with a record, it is named, and nothing is raised."""
    found = finding(**changes)
    assert found.code == "conda-invalid"
    assert found.remedy


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {**artifact().facts, "subdir": "../.."},
        {**artifact().facts, "channel": 1},
        {**artifact().facts, "record": []},
    ],
)
def test_facts_that_are_none_are_refused(facts: dict[str, Any]) -> None:
    """A snapshot with other facts than a lock writes cannot become a channel; the error names the file."""
    made = Artifact("conda", "tool", "1.0", "tool-1.0-0.conda", "sha256:" + "0" * 64, 1, "", (), facts)
    with pytest.raises(IntegrityError, match=r"tool-1\.0-0\.conda"):
        repodata.record_of(made)


def records(count: int = 50) -> list[dict[str, Any]]:
    """Some records of either format, in no order."""
    made = []
    for number in range(count):
        suffix = ".conda" if number % 3 else ".tar.bz2"
        name = f"p{number}"
        made.append({**FULL, "name": name, "fn": f"{name}-1!1.0-h0_0{suffix}", "license": "Ünïcode"})
    random.Random(7).shuffle(made)
    return made


def test_equal_records_give_equal_bytes_in_any_order() -> None:
    """A channel is the same on every machine, whatever order its packages were locked in."""
    some = records()
    data = repodata.write("linux-64", some)
    assert repodata.write("linux-64", sorted(some, key=lambda r: str(r["fn"]))) == data
    assert repodata.write("linux-64", [*some, *some]) == data


def test_each_format_has_its_table() -> None:
    """``.tar.bz2`` stands under ``packages``, ``.conda`` under ``packages.conda``; the JSON is strict."""
    data = repodata.write("linux-64", records())
    told = parse(data, "repodata.json")
    assert all(name.endswith(".tar.bz2") for name in told["packages"])
    assert all(name.endswith(".conda") for name in told["packages.conda"])
    assert len(told["packages"]) + len(told["packages.conda"]) == 50
    assert told["info"] == {"subdir": "linux-64"}
    assert told["removed"] == []
    assert told["repodata_version"] == 1
    assert not {"fn", "url", "channel"} & {key for r in told["packages"].values() for key in r}


def test_what_contradicts_itself_is_not_written() -> None:
    """Two records of one file, or a record of another subdir, are refused."""
    one = records(1)
    with pytest.raises(ValueError, match="differ"):
        repodata.write("linux-64", [*one, {**one[0], "depends": []}])
    with pytest.raises(ValueError, match="linux-64"):
        repodata.write("noarch", one)


def test_a_record_agrees_with_its_package_in_the_eyes_of_conda(tmp_path: Path) -> None:
    """What conda-package-streaming reads in a package is what our record of it says."""
    for suffix in repodata.SUFFIXES:
        made = make_conda(tmp_path, "tool", "1.0", depends=["lib >=1"], suffix=suffix)
        url = f"{CHANNEL}/{made.subdir}/{made.filename}"
        record = repodata.record_of(
            artifact({**made.record, "fn": made.filename, "url": url, "channel": CHANNEL})
        )
        with made.path.open("rb") as file:
            index = next(
                json.load(tar.extractfile(member) or file)
                for tar, member in STREAMING.stream_conda_info(made.filename, file)
                if member.name == "info/index.json"
            )
        assert {key: record[key] for key in index} == index


SIZES = (0, 1, 2, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 3 << 17, 1_000_003)


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_frame_is_zstandard(size: int) -> None:
    """Every zstd reader gives the bytes back, at once and as a stream, within a window of one block."""
    for data in (
        random.Random(size).randbytes(size),
        bytes(size),
        b"a" * (size // 2) + b"b" * (size - size // 2),
    ):
        frame = repodata.zstd_stored(data)
        assert zstandard.ZstdDecompressor().decompress(frame) == data
        stream = zstandard.ZstdDecompressor(max_window_size=1 << 17).decompressobj()
        assert stream.decompress(frame) == data
        assert stream.eof
        assert stream.unused_data == b""
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum) == (size, False)


def test_a_stored_frame_is_hardly_larger() -> None:
    """Three bytes a block and fourteen for the frame; what is all one byte takes four bytes a block."""
    assert len(repodata.zstd_stored(random.Random(1).randbytes(1 << 20))) == (1 << 20) + 14 + 8 * 3
    assert len(repodata.zstd_stored(bytes(1 << 20))) == 14 + 8 * 4


@pytest.mark.parametrize("end", ["", "/", "?a=b", "#c", "/main", "/main/linux-64/x-1-0.conda"])
def test_a_token_goes_wherever_the_url_ends(end: str) -> None:
    """A token at the end of a channel's address is one as much as a token within it."""
    url = f"https://conda.example.org/t/hunter2{end}"
    assert "hunter2" not in repodata.plain_url(url)
    assert not repodata.is_plain(url)
    assert repodata.is_plain(repodata.plain_url(url) + "/")


def test_no_token_of_a_channel_without_a_name_reaches_an_artifact() -> None:
    """A channel that is all of a host may be told with a token too; nothing keeps it."""
    base = "https://conda.example.org/t/hunter2"
    made = artifact(url=f"{base}/linux-64/{FULL['fn']}", channel=base)
    assert "hunter2" not in repr(made)
    assert made.facts["channel"] == "https://conda.example.org"
