"""Bundles as they are written: what a manifest may say, how volumes are cut, and how lost pieces are sent again."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.errors import (
    FormatError,
    HaversackError,
    IncompleteError,
    IntegrityError,
    NotFoundError,
    UsageError,
)
from haversack.formats import bundle as layout
from haversack.formats import ledgerline, lockfile
from haversack.formats import receipt as receipts
from haversack.formats.canonical import canonical
from haversack.model.bundle import VOLUME_OVERHEAD, cut
from haversack.ports.media import Folders, FolderWriter
from haversack.verbs import pack
from haversack.verbs.receive import receive
from haversack.verbs.resend import resend
from haversack.verbs.snapshots import receipt
from haversack.verbs.verify import verify
from tests.support.gate import (
    copied,
    flip,
    forged,
    manifest,
    refused,
    replace,
    run,
    sealed,
    unchanged,
    volumes,
)
from tests.support.tiny import Tiny, inside, outside, tiny_bundle

VOLUME_SIZE = 200_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle of one volume."""
    return tiny_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A bundle in which one wheel of a megabyte is larger than a volume, and one of a few bytes is not."""
    folder = tmp_path_factory.mktemp("split")
    large = tiny_bundle(folder, names=("alpha",), padding=1_000_000, volume_size=VOLUME_SIZE)
    assert len(large.packed.bundle.volumes) > 5
    return large


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    inside(tmp_path / "inside")
    return tmp_path / "inside"


# --- what a manifest may not say -----------------------------------------------------------------------------


def _file(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(value: dict[str, Any]) -> None:
        value["files"][path] = value["files"].pop("README.txt")

    return edit


def _also(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(value: dict[str, Any]) -> None:
        value["files"][path] = value["files"]["README.txt"]

    return edit


def _piece(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def edit(value: dict[str, Any]) -> None:
        value["volumes"][0]["pieces"][-1].update(fields)

    return edit


def _volume(name: str) -> Callable[[dict[str, Any]], None]:
    def edit(value: dict[str, Any]) -> None:
        value["volumes"][0]["name"] = name

    return edit


def _top(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(fields)


def _gap(value: dict[str, Any]) -> None:
    piece = value["volumes"][0]["pieces"].pop()
    part = {"blob": piece["digest"], "digest": "sha256:" + "1" * 64, "size": 10}
    value["volumes"][0]["pieces"] += [{**part, "offset": 0}, {**part, "offset": 11}]


def _overlap(value: dict[str, Any]) -> None:
    _gap(value)
    value["volumes"][0]["pieces"][-1]["offset"] = 9


def _empty_part(value: dict[str, Any]) -> None:
    _gap(value)
    value["volumes"][0]["pieces"][-1] |= {"offset": 10, "size": 0}


def _twice(value: dict[str, Any]) -> None:
    value["volumes"][0]["pieces"].append(value["volumes"][0]["pieces"][-1])


def _twin_volumes(value: dict[str, Any]) -> None:
    value["volumes"].append({"name": "Volume-001", "pieces": []})


def _requires_what_travels(value: dict[str, Any]) -> None:
    value["requires"] = [value["volumes"][0]["pieces"][-1]["digest"]]


def _less_metadata(value: dict[str, Any]) -> None:
    value["metadata"] = value["metadata"][1:]


def _wheel_as_metadata(value: dict[str, Any]) -> None:
    value["snapshot"] = value["volumes"][0]["pieces"][-1]["digest"]
    value["metadata"].append(value["snapshot"])


def _lost_wheel(value: dict[str, Any]) -> None:
    value["volumes"][0]["pieces"].pop()


OTHER = "sha256:" + "0" * 64
FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    **{
        f"file {path!r}": (_file(path), "is not a place for a file")
        for path in (
            *("../evil", "/etc/passwd", "..", ".", "", "a/../../b", "a//b", "a/b/c", "a\\b", "C:evil", "nul"),
            *("con.txt", "x.", "x ", "x\0y", "x\ny", "blobs/x", "Parts/x", "BUNDLE.json", "sha256sums", "x" * 300),
        )
    },
    "two files but for case": (_also("readme.TXT"), "two files have one name"),
    **{
        f"volume {name!r}": (_volume(name), "is not a plain file name")
        for name in ("../volume-001", "a/b", "", ".", "..", "nul", "x ", "/", "v\\w", "v:w")
    },
    "two volumes but for case": (_twin_volumes, "two volumes have one name"),
    "no volume": (_top(volumes=[]), "has no volume"),
    "volumes are a word": (_top(volumes="volume-001"), "'volumes' is not a list"),
    "a volume is a word": (_top(volumes=["volume-001"]), "volumes[0]: is not an object"),
    "a piece is a word": (_top(volumes=[{"name": "v", "pieces": ["x"]}]), "pieces[0]: is not an object"),
    "negative size": (_piece(size=-1), "'size' is negative"),
    "size beyond any disk": (_piece(size=1 << 63), "'size' is too large"),
    "size of 400 digits": (_piece(size=10**400), "'size' is too large"),
    "another size": (_piece(size=1), "names other files than its snapshot needs"),
    "size is true": (_piece(size=True), "'size' is not a number"),
    "size is a fraction": (_piece(size=1.5), "'size' is not a number"),
    "size is nothing": (_piece(size=None), "'size' is absent"),
    "negative offset": (_piece(blob=OTHER, offset=-1), "'offset' is negative"),
    "digest that climbs": (_piece(digest="sha256:../../../etc/passwd"), "'digest' is not a sha256 digest"),
    "digest in capitals": (_piece(digest="sha256:" + "A" * 64), "'digest' is not a sha256 digest"),
    "another kind of digest": (_piece(digest="sha512:" + "a" * 128), "'digest' is not a sha256 digest"),
    "pieces with a gap": (_gap, "do not fit together at byte 10"),
    "pieces that overlap": (_overlap, "do not fit together at byte 10"),
    "a piece of nothing": (_empty_part, "is empty"),
    "a blob that travels twice": (_twice, ""),
    "requires what travels": (_requires_what_travels, "both travels and is required"),
    "requires no digest": (_top(requires=["x"]), "is not a sha256 digest"),
    "requires a number": (_top(requires=[1]), "is not a list of strings"),
    "requires twice": (_top(requires=[OTHER, OTHER]), "names one blob twice"),
    "metadata that does not travel": (_top(metadata=[OTHER]), "metadata that does not travel"),
    "less metadata": (_less_metadata, "names other metadata than its snapshot has"),
    "metadata twice": (lambda m: m["metadata"].append(m["metadata"][0]), "names one blob twice"),
    "no metadata": (_top(metadata=[]), "its snapshot neither travels"),
    "absent snapshot": (_top(snapshot=OTHER), "its snapshot neither travels"),
    "snapshot that is a wheel": (_wheel_as_metadata, "not readable as JSON"),
    "a wheel left out": (_lost_wheel, "names other files than its snapshot needs"),
    "called current": (_top(name="current"), "'current' is no name"),
    "called ../x": (_top(name="../x"), "is no name for a snapshot"),
    "called nothing": (_top(name=""), "is no name for a snapshot"),
    "no site": (_top(site=None), "'site' is absent"),
    "site is a number": (_top(site=1), "'site' is not a string"),
    "negative sequence": (_top(sequence=-1), "'sequence' is negative"),
    "files are a list": (_top(files=[]), "'files' is not an object"),
    "a file is a word": (_top(files={"x": "y"}), "files.x: is not an object"),
    "rehearsals are a word": (_top(rehearsals="passed"), "'rehearsals' is not a list"),
    **{
        f"version {text!r}": (_top(**{"haversack-bundle": text}), "is not like '1.0'")
        for text in ("1", "1.0.0", "x.y", "", "+1.0", "1_0.0", " 1.0", "-1.0", "1.", "\uff11.0", "9" * 5000 + ".0")
    },
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_manifest_is_refused(forgery: str, tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """A manifest whose sums are right but whose words are not is refused by folder, naming what it said."""
    edit, words = FORGED[forgery]
    bundle = forged(tiny.bundle, tmp_path / "bent", edit)
    for attempt in (["verify"], ["receive"], ["receive", "--dry-run"]):
        with unchanged(store):
            outcome = run(*attempt, bundle, store=store)
        refused(outcome, IntegrityError, words)


def _nested(data: bytes) -> bytes:
    return data.replace(b'"requires":[]', b'"requires":' + b"[" * 100_000 + b"]" * 100_000)


RAW: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "no JSON": lambda _: b"PK\x03\x04" + bytes(100),
    "cut short": lambda data: data[:-1],
    "more after it": lambda data: data + b"{}",
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "deep lists": _nested,
    "deep objects": lambda data: data.replace(b'"requires":[]', b'"requires":' + b'{"":' * 50_000),
    "a key twice": lambda data: data.replace(b'"sequence":1', b'"sequence":1,"sequence":2'),
    "not a number": lambda data: data.replace(b'"sequence":1', b'"sequence":NaN'),
    "infinity": lambda data: data.replace(b'"sequence":1', b'"sequence":Infinity'),
    "a number that becomes infinity": lambda data: data.replace(b'"sequence":1', b'"sequence":1,"x":1e999'),
    "a number of 5000 digits": lambda data: data.replace(b'"sequence":1', b'"sequence":' + b"9" * 5000),
    "half a character": lambda data: data.replace(b'"site":"tiny"', b'"site":"\\ud800"'),
    "half a character in a key": lambda data: data.replace(b'"site"', b'"\\uDFff":1,"site"'),
    "no UTF-8": lambda data: data.replace(b'"site":"tiny"', b'"site":"\xff"'),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
}


@pytest.mark.parametrize("trick", RAW)
def test_bytes_that_are_no_manifest_are_refused(trick: str, tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """What JSON parsers stumble over is a finding about bundle.json, in a folder and in a stream."""
    bundle = copied(tiny.bundle, tmp_path / "bent")
    data = RAW[trick]((volumes(bundle)[0] / "bundle.json").read_bytes())
    sealed(bundle, data)
    for attempt in ("verify", "receive"):
        with unchanged(store):
            refused(run(attempt, bundle, store=store), IntegrityError, "bundle.json", "[manifest-damaged]")


def test_a_newer_major_format_is_refused_and_a_newer_minor_one_noted(
    tiny: Tiny, store: Path, tmp_path: Path
) -> None:
    """2.0 is a FormatError with the remedy to use a newer haversack; 1.7 with an unknown key is received."""
    newer = forged(tiny.bundle, tmp_path / "newer", _top(**{"haversack-bundle": "2.0"}))
    for attempt in ("verify", "receive"):
        with unchanged(store):
            refused(run(attempt, newer, store=store), FormatError, "is of format 2.0", "bootstrap.sh")
    older = forged(tiny.bundle, tmp_path / "zero", _top(**{"haversack-bundle": "0.9"}))
    refused(run("verify", older, store=store), FormatError, "is of format 0.9")
    minor = forged(
        tiny.bundle, tmp_path / "minor", _top(**{"haversack-bundle": "1.7", "colour": {"x": [1.5]}})
    )
    outcome = run("receive", minor, store=store)
    assert outcome.code == 0
    assert "note: bundle.json: is of format 1.7, newer than 1.0" in outcome.err


def test_the_spec_of_a_manifest_survives_a_round_trip(tiny: Tiny, split: Tiny) -> None:
    """Reading and writing a manifest gives the same bytes, so that its digest is its identity."""
    for made in (tiny, split):
        data = (volumes(made.bundle)[0] / "bundle.json").read_bytes()
        bundle, warning = layout.read(data)
        assert (layout.write(bundle), warning) == (data, None)
        assert bundle == made.packed.bundle


# --- mutations nobody thought of -----------------------------------------------------------------------------

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([OTHER, "../x", "volume-001", "", [], {}, [[]], -1, 1 << 64, "1.0", "blobs/sha256/x"]),
)


def _spots(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(spot for key, item in inner for spot in _spots(item, (*here, key)))]


def _mutate(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """Replace, drop, double or move one value."""
    value = copy.deepcopy(value)
    spot = draw(st.sampled_from(_spots(value)[1:]))
    holder = value
    for key in spot[:-1]:
        holder = holder[key]
    key = spot[-1]
    act = draw(st.sampled_from(["replace", "drop", "double", "swap"]))
    if act == "drop":
        del holder[key]
    elif act == "double" and isinstance(holder, list):
        holder.insert(0, holder[key])
    elif act == "swap":
        other = draw(st.sampled_from(_spots(value)[1:]))
        found = value
        with contextlib.suppress(KeyError, IndexError, TypeError):
            for step in other:
                found = found[step]
        holder[key] = copy.deepcopy(found)
    else:
        holder[key] = draw(_VALUES)
    return value


def _survives(bundle: Path, folder: Path) -> None:
    """A bundle verifies, with or without findings, or raises one of our own errors; and so does a dry run."""
    site = inside(folder)
    with contextlib.suppress(HaversackError):
        done = verify(Folders([bundle]), None, site.progress)
        assert done.findings or done.bundle
        if not any(finding.blocking for finding in done.findings):
            received = receive(Folders([bundle]), site, dry_run=True)
            assert received.snapshot.id == done.bundle.snapshot if done.bundle else False


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_manifests_never_crash_a_reader(data: st.DataObject, tiny: Tiny, tmp_path: Path) -> None:
    """Whatever one or two changes make of a manifest, it is right or it is a finding or an error of ours."""
    bundle = tmp_path / "bent"
    if not bundle.exists():
        copied(tiny.bundle, bundle)
    value = manifest(tiny.bundle)
    for _ in range(data.draw(st.integers(1, 2))):
        value = _mutate(value, data.draw)
    if not isinstance(value, dict):
        return
    sealed(bundle, json.dumps(value).encode())
    _survives(bundle, tmp_path / "fuzzed")


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    number=st.integers(0, 5),
    place=st.integers(0, 10_000),
    bytes_=st.binary(min_size=1, max_size=3),
    cut_off=st.booleans(),
)
def test_mutated_metadata_never_crashes_a_reader(
    number: int, place: int, bytes_: bytes, cut_off: bool, tiny: Tiny, tmp_path: Path
) -> None:
    """Index, manifests and configs of other bytes, under their true digests, are findings too."""
    bundle = tmp_path / "bent"
    if bundle.exists():
        shutil.rmtree(bundle)
    copied(tiny.bundle, bundle)
    volume = volumes(bundle)[0]
    value = manifest(bundle)
    old = value["metadata"][number]
    data = bytearray((volume / "blobs" / "sha256" / old[7:]).read_bytes())
    place %= len(data)
    data[place : None if cut_off else place + len(bytes_)] = bytes_
    _reblobbed(bundle, old, bytes(data))
    _survives(bundle, tmp_path / "fuzzed")


def _reblobbed(bundle: Path, old: str, data: bytes) -> None:
    """Give one metadata blob other bytes, and everything that names it their digest, up to the manifest."""
    volume = volumes(bundle)[0]
    blobs = volume / "blobs" / "sha256"
    names = manifest(bundle)["metadata"]
    renamed = {old: data}
    while renamed:
        before, data = renamed.popitem()
        after = "sha256:" + hashlib.sha256(data).hexdigest()
        (blobs / before[7:]).unlink(missing_ok=True)
        (blobs / after[7:]).write_bytes(data)
        size = len(data)
        text = (volume / "bundle.json").read_bytes().replace(before.encode(), after.encode())
        value = json.loads(text)
        for piece in value["volumes"][0]["pieces"]:
            if piece["digest"] == after:
                piece["size"] = size
        replace(volume / "bundle.json", canonical(value))
        names = [after if name == before else name for name in names]
        for name in names:
            path = blobs / name[7:]
            if name != after and path.exists() and before.encode() in path.read_bytes():
                described = path.read_bytes().replace(before.encode(), after.encode())
                described = re.sub(
                    rb'("digest":"%s","size":)\d+|("size":)\d+(?=[^{}]*"digest":"%s")'
                    % (after.encode(), after.encode()),
                    lambda match, size=size: (match[1] or match[2]) + str(size).encode(),  # type: ignore[misc]
                    described,
                )
                renamed[name] = described
    sealed(bundle, (volume / "bundle.json").read_bytes())


def _config(bundle: Path) -> tuple[str, dict[str, Any]]:
    """The config of the one environment: its digest and its JSON."""
    for digest in manifest(bundle)["metadata"]:
        data = (volumes(bundle)[0] / "blobs" / "sha256" / digest[7:]).read_bytes()
        value = json.loads(data)
        if "haversack-environment" in value:
            return digest, value
    raise AssertionError("no config")


def _artifact(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["artifacts"][0].update(fields)


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], type[HaversackError], str]] = {
    **{
        f"file name {name!r}": (_artifact(filename=name), IntegrityError, "is not a plain file name")
        for name in ("../evil.whl", "/evil.whl", "a/b.whl", "..", "", "nul", "a\\b.whl", "x\n.whl")
    },
    "file names but for case": (
        lambda c: c["artifacts"][1].update(filename=c["artifacts"][0]["filename"].upper()),
        IntegrityError,
        "one file name where case is ignored",
    ),
    "another file name than the layer": (
        _artifact(filename="gamma-1.0-py3-none-any.whl"),
        IntegrityError,
        "layers are not the artifacts",
    ),
    "another digest than the layer": (
        _artifact(digest=OTHER),
        IntegrityError,
        "layers are not the artifacts",
    ),
    "another size than the layer": (_artifact(size=1), IntegrityError, "layers are not the artifacts"),
    "negative size": (_artifact(size=-1), IntegrityError, "'size' is negative"),
    "one artifact less": (lambda c: c["artifacts"].pop(), IntegrityError, "layers are not the artifacts"),
    "no platform": (lambda c: c["target"].pop("platform"), IntegrityError, "'platform' is absent"),
    "unknown platform": (
        lambda c: c["target"].update(platform="plan9-mips"),
        IntegrityError,
        "unknown platform",
    ),
    "newer major": (lambda c: c.update({"haversack-environment": "2.0"}), FormatError, "is of format 2.0"),
}


@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_that_disagrees_is_refused(change: str, tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """An environment's config that lies about its layers, climbs out of its folder or is newer is refused."""
    edit, error, words = CONFIGS[change]
    bundle = copied(tiny.bundle, tmp_path / "bent")
    digest, value = _config(bundle)
    edit(value)
    _reblobbed(bundle, digest, canonical(value))
    for attempt in (["verify"], ["receive"], ["receive", "--dry-run"]):
        with unchanged(store):
            refused(run(*attempt, bundle, store=store), error, words)


def test_metadata_that_is_not_named_so_is_refused(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """Without any one of its metadata a manifest is not that of its snapshot, in folders and in a dry run too."""
    for number in range(6):
        bundle = forged(tiny.bundle, tmp_path / str(number), lambda m, n=number: m["metadata"].pop(n))  # type: ignore[misc]
        for attempt in (["verify"], ["receive"], ["receive", "--dry-run"]):
            with unchanged(store):
                refused(run(*attempt, bundle, store=store), IntegrityError, "[manifest-damaged]")


def test_the_forger_of_configs_can_forge_a_good_one(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """The tests above fail for the reason they name: a harmless change of a config is received."""
    bundle = copied(tiny.bundle, tmp_path / "bent")
    digest, value = _config(bundle)
    value["environment"]["check"] = "python -c pass"
    _reblobbed(bundle, digest, canonical(value))
    outcome = run("receive", bundle, store=store)
    assert (outcome.code, outcome.err) == (0, "")


# --- volumes -------------------------------------------------------------------------------------------------


def test_every_volume_is_checked_with_sha256sum_alone(tiny: Tiny, split: Tiny) -> None:
    """In each volume `sha256sum -c --strict` finds every file but SHA256SUMS itself, and all of them right."""
    for volume in (*volumes(tiny.bundle), *volumes(split.bundle)):
        done = subprocess.run(
            ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=volume, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        files = {p.relative_to(volume).as_posix() for p in volume.rglob("*") if p.is_file()}
        checked = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
        assert checked == files - {"SHA256SUMS"}


def test_volumes_fit_their_medium(split: Tiny) -> None:
    """No volume is larger than was asked for, and every name is one that FAT32 can hold."""
    for volume in volumes(split.bundle):
        files = [path for path in volume.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= VOLUME_SIZE
        names = [path.relative_to(volume).as_posix() for path in volume.rglob("*")]
        assert len({name.casefold() for name in names}) == len(names)
        for name in names:
            assert all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in name.split("/")), name
            assert len(name) < 200


def test_volumes_of_many_files_fit_their_medium_too(tmp_path: Path) -> None:
    """The lists that stand on every volume grow with the site, and still the volume is as large as was said."""
    names = tuple(f"package{n:03d}" for n in range(220))
    many = tiny_bundle(tmp_path, names=names, volume_size=VOLUME_SIZE)
    assert len(volumes(many.bundle)) > 1
    for volume in volumes(many.bundle):
        assert sum(path.stat().st_size for path in volume.rglob("*") if path.is_file()) <= VOLUME_SIZE
    outcome = run("verify", many.bundle, store=tmp_path / "nowhere")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_volume_too_small_for_anything_is_refused(tmp_path: Path) -> None:
    """A size that leaves no room for content is an error that says which one would."""
    for size in (0, 1, VOLUME_OVERHEAD, VOLUME_OVERHEAD + 1):
        with pytest.raises(UsageError, match="too small") as caught:
            tiny_bundle(tmp_path / str(size), volume_size=size)
        assert caught.value.remedy


def test_a_blob_larger_than_a_volume_is_put_together_again(split: Tiny, store: Path) -> None:
    """Parts give the wheel back, bit by bit: with `cat` and with `receive`."""
    (artifact,) = split.lock.artifacts
    wheel = (split.wheels / artifact.filename).read_bytes()
    parts = sorted(split.bundle.glob("*/parts/*"), key=lambda path: path.name)
    assert len(parts) > 5
    assert b"".join(part.read_bytes() for part in parts) == wheel
    outcome = run("receive", split.bundle, store=store)
    assert (outcome.code, outcome.err) == (0, "")
    assert (store / "blobs" / "sha256" / artifact.digest[7:]).read_bytes() == wheel


def test_of_a_split_blob_every_bad_part_is_named(split: Tiny, store: Path, tmp_path: Path) -> None:
    """Two damaged parts and a lost one are three findings and three lines to send again."""
    bundle = copied(split.bundle, tmp_path / "bent")
    parts = sorted(bundle.glob("*/parts/*"), key=lambda path: path.name)
    flip(parts[1])
    replace(parts[2], parts[2].read_bytes()[:-1])
    parts[4].unlink()
    listed = tmp_path / "list"
    outcome = run("verify", bundle, "--resend", listed, store=store)
    names = [path.relative_to(bundle).as_posix() for path in (parts[1], parts[2], parts[4])]
    refused(outcome, IntegrityError, *names)
    assert listed.read_text().splitlines()[1:] == sorted(names)
    with unchanged(store):
        refused(run("receive", bundle, store=store), IntegrityError, *names)


def test_parts_heal_each_other_across_copies(split: Tiny, store: Path, tmp_path: Path) -> None:
    """Of two copies with different parts damaged the good parts make the blob."""
    one, two = copied(split.bundle, tmp_path / "one"), copied(split.bundle, tmp_path / "two")
    flip(min(one.glob("*/parts/*"), key=lambda path: path.name))
    flip(max(two.glob("*/parts/*"), key=lambda path: path.name))
    outcome = run("receive", one, two, store=store)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("another copy of it is good") == 1


def test_a_part_whose_own_digest_lies_is_refused(split: Tiny, store: Path, tmp_path: Path) -> None:
    """What sha256sum would refuse haversack refuses too, though the whole blob is right."""

    def lie(value: dict[str, Any]) -> None:
        value["volumes"][2]["pieces"][0]["digest"] = OTHER

    bundle = forged(split.bundle, tmp_path / "bent", lie)
    sums = volumes(bundle)[2] / "SHA256SUMS"
    replace(sums, re.sub(r"[0-9a-f]{64}  parts/", "0" * 64 + "  parts/", sums.read_text()).encode())
    with unchanged(store):
        refused(run("receive", bundle, store=store), IntegrityError, "volume-003/parts/")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(0, 5000), max_size=40), room=st.integers(1024, 2000), whole=st.booleans())
def test_cutting_loses_nothing_and_fits(sizes: list[int], room: int, whole: bool) -> None:
    """Whatever the sizes, pieces tile their blobs in order, fit, and only a blob larger than a volume is split."""
    blobs = [(f"sha256:{n:064x}", size) for n, size in enumerate(sizes)]
    shares = cut(blobs, None if whole else room + VOLUME_OVERHEAD)
    flat = [piece for share in shares for piece in share]
    for digest, size in blobs:
        pieces = [(offset, length) for found, offset, length in flat if found == digest]
        assert len(pieces) == 1 or (not whole and size > room)
        at = 0
        for offset, length in pieces:
            assert offset == at
            at += length
        assert at == size
    assert list(dict.fromkeys(digest for digest, _, _ in flat)) == [digest for digest, _ in blobs]
    if not whole:
        assert all(sum(length for _, _, length in share) <= room for share in shares)


# --- what is lost is sent again ------------------------------------------------------------------------------


def _sent_again(made: Tiny, listed: Path, fix: Path) -> pack.Packed:
    return resend(listed.read_bytes(), str(listed), outside(made.store), FolderWriter(fix))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_lost_or_damaged_is_sent_again(
    seed: int, split: Tiny, store: Path, tmp_path: Path
) -> None:
    """verify --resend, pack --resend and receive with both folders make any damage good, and send only that."""
    bundle = copied(split.bundle, tmp_path / "bent")
    chance = random.Random(seed)
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    hurt = chance.sample(files, 6)
    for number, path in enumerate(hurt):
        if number % 2:
            path.unlink()
        else:
            flip(path)
    listed, fix = tmp_path / "list", tmp_path / "fix"
    assert run("verify", bundle, "--resend", listed, store=store).code != 0
    names = sorted(path.relative_to(bundle).as_posix() for path in hurt)
    assert listed.read_text().splitlines() == [f"haversack-resend 1.0 {split.packed.id}", *names]
    with unchanged(store):
        assert run("receive", bundle, store=store).code != 0
    _sent_again(split, listed, fix)
    sent = {path.relative_to(fix).as_posix() for path in fix.rglob("*") if path.is_file()}
    always = {"bundle.json", "VOLUME", "SHA256SUMS"}
    assert set(names) <= sent
    assert all(name in names or name.partition("/")[2] in always for name in sent)
    for volume in volumes(fix):
        done = subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=volume)
        assert done.returncode == 0
    outcome = run("receive", bundle, fix, store=store)
    assert outcome.code == 0, outcome.err
    assert run("snapshots", "--json", store=store).value[0]["id"] == split.packed.bundle.snapshot


def test_a_lost_volume_is_sent_again_whole(split: Tiny, store: Path, tmp_path: Path) -> None:
    """A volume that was never given comes back file by file the same."""
    bundle = copied(split.bundle, tmp_path / "bent")
    lost = volumes(bundle)[3].name
    shutil.rmtree(bundle / lost)
    listed, fix = tmp_path / "list", tmp_path / "fix"
    refused(run("verify", bundle, "--resend", listed, store=store), IncompleteError, lost)
    _sent_again(split, listed, fix)
    shutil.move(fix / lost, bundle / lost)
    assert not list(fix.iterdir())
    for path in (split.bundle / lost).rglob("*"):
        if path.is_file():
            assert (bundle / path.relative_to(split.bundle)).read_bytes() == path.read_bytes()
    outcome = run("receive", bundle, store=store)
    assert (outcome.code, outcome.err) == (0, "")


def test_resend_lists_are_read_strictly(split: Tiny, tmp_path: Path) -> None:
    """A list that is none, newer, of another bundle or of other files is refused, and nothing is written."""
    bundle_id = split.packed.id
    cases: list[tuple[str, type[HaversackError], str]] = [
        ("", IntegrityError, "is not a resend list"),
        ("volume-001/README.txt\n", IntegrityError, "is not a resend list"),
        (f"haversack-resend 2.0 {bundle_id}\n", FormatError, "is of format 2.0"),
        ("haversack-resend 1.0 sha256:xyz\n", IntegrityError, "not a sha256 digest"),
        (f"haversack-resend 1.0 {OTHER}\n", NotFoundError, "was not packed from this store"),
        (f"haversack-resend 1.0 {bundle_id}\nvolume-001/../../etc/passwd\n", IntegrityError, "has no file"),
        (f"haversack-resend 1.0 {bundle_id}\nvolume-099/README.txt\n", IntegrityError, "has no file"),
    ]
    listed = tmp_path / "list"
    for text, error, words in cases:
        listed.write_text(text)
        with pytest.raises(error, match=words) as caught:
            _sent_again(split, listed, tmp_path / "fix")
        assert caught.value.remedy
        assert not list(tmp_path.glob("fix/*"))


def test_a_store_that_lost_the_blob_says_so(tmp_path: Path) -> None:
    """What the outside no longer holds cannot be sent again; the remedy is to pack anew."""
    made = tiny_bundle(tmp_path / "tiny")
    listed = tmp_path / "list"
    blob = made.lock.artifacts[0].digest[7:]
    listed.write_bytes(layout.write_resend(made.packed.id, [f"volume-001/blobs/sha256/{blob}"]))
    (made.store / "blobs" / "sha256" / blob).unlink()
    with pytest.raises(IncompleteError, match="no longer holds") as caught:
        _sent_again(made, listed, tmp_path / "fix")
    assert caught.value.remedy == "pack anew"


# --- writing -------------------------------------------------------------------------------------------------


def test_the_same_lock_gives_the_same_snapshot_anywhere(tiny: Tiny, tmp_path: Path) -> None:
    """Packed into two stores, snapshots are equal and manifests differ in their moments only."""
    again = tiny_bundle(tmp_path / "again")
    assert again.packed.bundle.snapshot == tiny.packed.bundle.snapshot
    one, two = manifest(tiny.bundle), manifest(again.bundle)
    for value in (one, two):
        value.pop("created")
        for rehearsal in value["rehearsals"]:
            rehearsal.pop("at")
    assert one == two


def test_a_folder_that_holds_something_is_never_written_into(tmp_path: Path) -> None:
    """Neither a file, nor a folder, nor a hidden folder of somebody is removed for a bundle."""
    for number, name in enumerate(["file", "folder/file", ".git/config", ".config/x", ".partial-of-mine/x"]):
        place = tmp_path / f"out{number}"
        (place / name).parent.mkdir(parents=True)
        (place / name).write_bytes(b"mine")
        with pytest.raises(UsageError, match="is not an empty folder") as caught:
            FolderWriter(place)
        assert caught.value.remedy
        assert (place / name).read_bytes() == b"mine"


def test_what_a_killed_pack_left_is_no_bundle(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """A volume under its working name is told, not read; the next pack to that folder removes it."""
    out = tmp_path / "out"
    writer = FolderWriter(out)
    writer.write("volume-001", "README.txt", 1, [b"x"])
    refused(run("verify", out, store=store), NotFoundError, "holds no volume")
    shutil.copytree(volumes(tiny.bundle)[0], out / "volume-002")
    refused(run("verify", out, store=store), IntegrityError, ".volume-001.partial: was left by a pack")
    shutil.rmtree(out / "volume-002")
    FolderWriter(out)
    assert not list(out.iterdir())


# --- other files that strangers write --------------------------------------------------------------------------

_SNIPPETS = (
    b'"',
    b"{",
    b"[",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"\n",
    b"\0",
    b"9" * 30,
    b"true",
    b"\xff",
)


def _bent(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them changed, left out, put in or cut off."""
    bent = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(bent) + 1)
        act = chance.randrange(4)
        if act == 0:
            bent[at : at + 1] = bytes([chance.randrange(256)])
        elif act == 1:
            del bent[at : at + chance.randrange(9)]
        elif act == 2:
            bent[at:at] = chance.choice(_SNIPPETS)
        else:
            del bent[at:]
    return bytes(bent)


@pytest.mark.parametrize("kind", ["manifest", "receipt", "lock", "ledger", "sums", "resend"])
def test_readers_of_bent_files_raise_our_own_errors(kind: str, tiny: Tiny, store: Path) -> None:
    """Whatever happens to a file on its way, its reader returns or raises an error that has an exit code."""
    (volume,) = volumes(tiny.bundle)
    receive(Folders([tiny.bundle]), inside(store))
    read: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "manifest": ((volume / "bundle.json").read_bytes(), layout.read),
        "receipt": (receipts.write(receipt(inside(store))), lambda data: receipts.read(data, "file")),
        "lock": (lockfile.write(tiny.lock), lockfile.read),
        "ledger": (
            (store / "haversack" / "ledger.jsonl").read_bytes(),
            lambda data: ledgerline.read(data, 1),
        ),
        "sums": ((volume / "SHA256SUMS").read_bytes(), layout.read_sums),
        "resend": (
            layout.write_resend(tiny.packed.id, ["volume-001/VOLUME"]),
            lambda data: layout.read_resend(data, "file"),
        ),
    }
    data, reader = read[kind]
    reader(data)
    chance = random.Random(kind)
    for _ in range(1500):
        with contextlib.suppress(HaversackError):
            reader(_bent(data, chance))
