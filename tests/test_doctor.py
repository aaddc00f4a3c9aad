"""Doctor: what is wrong with a machine, a store, an environment, and what to do about it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import PrefixError
from haversack.model.artifact import digest_of
from haversack.ports.run import Programs
from haversack.verbs import doctor, holdings, snapshots
from haversack.verbs.install import install
from tests.support import tiny
from tests.support.packed import packed, received
from tests.support.wheels import make_wheel

LIB = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """An installed environment of alpha and beta; the store is in ``inside`` beside it."""
    wheels = [
        make_wheel(tmp_path, name, "1.0", entry_points={f"{name}-tool": f"{name}:main"})
        for name in ("alpha", "beta")
    ]
    packed(tmp_path, *wheels, rehearsing=False)
    received(tmp_path)
    install("lab", tmp_path / "env", tiny.inside(tmp_path / "inside"))
    return tmp_path / "env"


def codes(env: Path) -> list[tuple[str, str]]:
    """Code and subject of what the doctor finds in an environment."""
    found = doctor.environment(env, tiny.inside(env.parent / "inside"))
    return [(finding.code, finding.subject) for finding in found.findings]


def told(store: Path, *words: str | Path, code: int = 0) -> Any:
    """What `haversack doctor --json` says, when it ends as expected."""
    done = tiny.haversack("doctor", "--json", *words, store=store)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def rewrite(path: Path, text: str) -> None:
    """Another file under that name, so that nothing else that shares its bytes changes."""
    path.unlink()
    path.write_text(text)


def test_a_fresh_environment_is_well(env: Path) -> None:
    """Nothing is found in an environment as it was installed, nor once it has been used."""
    assert codes(env) == []
    Programs()([env / "bin" / "python", "-c", "import alpha, beta"])
    assert list((env / LIB / "alpha").rglob("*.pyc"))
    assert codes(env) == []
    assert told(env.parent / "inside", "--env", env)["findings"] == []


def edited(env: Path) -> None:
    """A module became another."""
    rewrite(env / LIB / "alpha" / "__init__.py", "evil = True\n")


def edited_to_the_same_size(env: Path) -> None:
    """A module became another of the same size."""
    path = env / LIB / "alpha" / "__init__.py"
    rewrite(path, path.read_text().replace("1.0", "6.6"))


def deleted(env: Path) -> None:
    """A module is gone."""
    (env / LIB / "alpha" / "__init__.py").unlink()


def script_edited(env: Path) -> None:
    """A program became another."""
    rewrite(env / "bin" / "beta-tool", "#!/bin/sh\ncurl evil\n")


def script_deleted(env: Path) -> None:
    """A program is gone."""
    (env / "bin" / "beta-tool").unlink()


def extra(env: Path) -> None:
    """A distribution came that nobody asked for."""
    info = env / LIB / "stowaway-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stowaway\nVersion: 3.0\n")
    (info / "RECORD").write_text("")


def absent(env: Path) -> None:
    """A distribution was removed, as pip does."""
    shutil.rmtree(env / LIB / "beta-1.0.dist-info")
    shutil.rmtree(env / LIB / "beta")


def upgraded(env: Path) -> None:
    """Somebody installed another version."""
    wheel = make_wheel(env.parent / "newer", "beta", "2.0", entry_points={"beta-tool": "beta:main"})
    env_ = {"UV_CACHE_DIR": str(env.parent / "uv-cache")}
    argv: list[str | Path]
    argv = ["uv", "pip", "install", "--offline", "--no-index", "--python", env / "bin" / "python", wheel]
    done = Programs()(argv, env=env_)
    assert done.code == 0, done.err


def no_record(env: Path) -> None:
    """The list of a distribution's files is gone."""
    (env / LIB / "beta-1.0.dist-info" / "RECORD").unlink()


def dead_python(env: Path) -> None:
    """The interpreter went away."""
    (env / "bin" / "python").unlink()
    (env / "bin" / "python").symlink_to("/nowhere/python3")


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        (edited, [("env-changed", f"{LIB}/alpha/__init__.py")]),
        (edited_to_the_same_size, [("env-changed", f"{LIB}/alpha/__init__.py")]),
        (deleted, [("env-missing", f"{LIB}/alpha/__init__.py")]),
        (script_edited, [("env-changed", "bin/beta-tool")]),
        (script_deleted, [("env-missing", "bin/beta-tool")]),
        (extra, [("env-extra", "stowaway 3.0")]),
        (absent, [("env-absent", "beta 1.0")]),
        (upgraded, [("env-changed", "beta")]),
        (no_record, [("env-missing", "beta-1.0.dist-info/RECORD")]),
        (dead_python, [("env-python", "bin/python")]),
    ],
)
def test_every_harm_is_found(env: Path, harm: Callable[[Path], None], wanted: list[tuple[str, str]]) -> None:
    """Whatever happened to an installed environment is found, named by its place, and ends with 19."""
    harm(env)
    assert [(code, subject.removeprefix(f"{env}/")) for code, subject in codes(env)] == wanted
    error = told(env.parent / "inside", "--env", env, code=19)
    assert [finding["code"] for finding in error["findings"]] == [code for code, _ in wanted]
    assert all(finding["remedy"] for finding in error["findings"])


def test_installing_again_mends(env: Path) -> None:
    """The remedy that the doctor names is one: after it everything is well."""
    for harm in (edited, script_deleted, extra, dead_python):
        harm(env)
    assert len(codes(env)) == 4
    install("lab", env, tiny.inside(env.parent / "inside"))
    assert codes(env) == []


def test_what_is_not_ours_is_not_judged(tmp_path: Path) -> None:
    """A folder that haversack did not make is refused with 15."""
    tiny.inside(tmp_path / "store")
    (tmp_path / "venv").mkdir()
    with pytest.raises(PrefixError):
        doctor.environment(tmp_path / "venv", tiny.inside(tmp_path / "store"))
    assert told(tmp_path / "store", "--env", tmp_path / "venv", code=15)["error"] == "prefix"


def test_an_environment_of_a_forgotten_snapshot(env: Path, tmp_path: Path) -> None:
    """Once its snapshot is pruned, the doctor says so, and still finds what its RECORDs tell."""
    packed(tmp_path, make_wheel(tmp_path, "gamma", "1.0"), rehearsing=False, name="2026-12", out="next")
    received(tmp_path, "next")
    inside = tiny.inside(tmp_path / "inside")
    assert codes(env) == []
    snapshots.prune(inside, keep=1)
    assert [code for code, _ in codes(env)] == ["store-incomplete"]
    assert told(tmp_path / "inside", "--env", env)["findings"][0]["blocking"] is False
    deleted(env)
    assert [code for code, _ in codes(env)] == ["env-missing", "store-incomplete"]


def blob_of(store: Path, wheel: Path) -> Path:
    """Where the store keeps a wheel."""
    return store / "blobs" / "sha256" / digest_of(wheel.read_bytes())[7:]


def rot(blob: Path) -> None:
    """One bit of a blob turns; the bundle, whose bytes it may share, keeps its own."""
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 4
    blob.unlink()
    blob.write_bytes(data)


def test_a_rotten_blob_is_found_dropped_and_received_again(env: Path, tmp_path: Path) -> None:
    """--read-all finds what rotted, --drop-damaged takes it out, receiving the bundle again brings it back."""
    store = tmp_path / "inside"
    blob = blob_of(store, tmp_path / "alpha-1.0-py3-none-any.whl")
    rot(blob)
    assert "store-damaged" not in json.dumps(told(store))
    found = told(store, "--read-all", code=13)
    assert [finding["code"] for finding in found["findings"] if finding["blocking"]] == ["store-damaged"]
    assert blob.name in str(found["findings"])
    told(store, "--drop-damaged", code=13)
    assert not blob.exists()
    gone = told(store, code=13)
    assert "store-incomplete" in {finding["code"] for finding in gone["findings"]}
    received(tmp_path)
    assert blob.exists()
    told(store, "--read-all")
    acts = [line.entry.act for line in tiny.inside(store).ledger.lines() if line.entry]
    assert acts[:3] == ["receive", "install", "drop-damaged"]
    assert codes(env) == []


def test_all_that_is_rotten_is_told(env: Path, tmp_path: Path) -> None:
    """Every damaged blob is named, not only the first, and those of two snapshots once."""
    store = tmp_path / "inside"
    for name in ("alpha", "beta"):
        rot(blob_of(store, tmp_path / f"{name}-1.0-py3-none-any.whl"))
    found = told(store, "--read-all", code=13)
    assert [f["code"] for f in found["findings"] if f["blocking"]] == ["store-damaged"] * 2
    assert env.exists()


def test_a_blob_that_lost_its_end_is_found_without_reading(env: Path, tmp_path: Path) -> None:
    """A truncated blob is found by its size alone."""
    blob = blob_of(tmp_path / "inside", tmp_path / "alpha-1.0-py3-none-any.whl")
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(data[:-1])
    found = told(tmp_path / "inside", code=13)
    assert "store-damaged" in {finding["code"] for finding in found["findings"]}
    assert env.exists()


def test_a_damaged_snapshot_is_found(env: Path, tmp_path: Path) -> None:
    """A snapshot whose own description rotted is named by its name, and the doctor goes on."""
    store = tmp_path / "inside"
    held, _ = holdings.current_snapshot(tiny.inside(store).store)
    rot(store / "blobs" / "sha256" / held.snapshot[7:])
    found = told(store, code=13)
    assert "snapshot 2026-11" in {finding["subject"] for finding in found["findings"]}
    assert env.exists()


def test_an_edited_ledger_is_found(env: Path, tmp_path: Path) -> None:
    """A line of the ledger that somebody changed is found and ends with 16 where nothing is worse."""
    ledger = tmp_path / "inside" / "haversack" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"receive"', '"deceive"'))
    found = told(tmp_path / "inside", code=16)
    assert "ledger-edited" in {finding["code"] for finding in found["findings"]}
    assert env.exists()


def test_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor names uv, the machine, its cage, and every setting that steers other tools, as notes."""
    home = tmp_path / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text("[global]\n")
    monkeypatch.setenv("HOME", str(home))
    environ = {"PIP_INDEX_URL": "http://user:secret@127.0.0.1/", "UV_PYTHON": "x", "PATH": "/bin"}
    found = doctor.machine(tiny.inside(tmp_path / "store"), environ)
    subjects = {finding.subject for finding in found.findings if finding.code == "ambient-config"}
    assert {"PIP_INDEX_URL", "UV_PYTHON", "~/.config/pip/pip.conf"} <= subjects
    assert not any(finding.blocking for finding in found.findings)
    assert any(line.startswith("uv: uv 0.") for line in found.looked)
    assert "secret" not in repr(found)


def test_an_empty_store_is_well(tmp_path: Path) -> None:
    """The first thing somebody types on a new machine ends with 0."""
    done = tiny.haversack("doctor", store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "snapshots: 0" in done.stdout
