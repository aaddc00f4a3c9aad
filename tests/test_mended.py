"""Ways in which the outside half once went wrong, each held shut."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack import kinds
from haversack.errors import DeclarationError, IntegrityError, LedgerError
from haversack.formats import requirements, uvlock
from haversack.formats.declaration import parse
from tests.support.tiny import haversack, tiny_bundle

PROJECT = b'[project]\nname = "p"\nversion = "1"\ndependencies = ["requests>=2"]\n'
LOCK = b"""version = 1
[[package]]
name = "p"
version = "1"
source = { virtual = "." }
[package.metadata]
requires-dist = [{ name = "requests", specifier = ">=2" }]
"""


def test_a_lock_that_answers_its_project_is_fresh() -> None:
    """A uv.lock whose project asks for nothing else is taken as it is."""
    assert uvlock.stale(LOCK, PROJECT) == []


@pytest.mark.parametrize("asked", [b'"requests>=2", "six"', b""])
def test_a_stale_uv_lock_is_noticed(asked: bytes) -> None:
    """A dependency that came or went since the lock was made is named."""
    project = PROJECT.replace(b'"requests>=2"', asked)
    assert uvlock.stale(LOCK, project) == (["six"] if asked else ["requests"])


def test_hashes_of_a_requirements_file_are_read_over_continued_lines() -> None:
    """Every hash of a requirement counts, with either line ending, and one without hashes allows all."""
    digits = "a" * 64, "b" * 64
    text = f"six==1 \\\r\n  --hash=sha256:{digits[0]} \\\n  --hash=sha256:{digits[1]}\nidna==3\n"
    assert requirements.hashes_of_file("r", lambda _: text.encode()) == {
        "six": {f"sha256:{digits[0]}", f"sha256:{digits[1]}"}
    }


def test_a_target_may_not_be_called_like_a_platform(tmp_path: Path) -> None:
    """The names of haversack's own targets are kept, since two of one name make a lock unreadable."""
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "haversack.toml").write_text(
        '[site]\nname = "s"\n[target.linux-x86_64]\nplatform = "linux-x86_64"\npython = "3.11"\n'
        '[env.e]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["linux-x86_64"]\n'
    )
    with pytest.raises(DeclarationError, match="name of a platform"):
        parse(tmp_path / "haversack.toml", kinds.keys())


@pytest.mark.parametrize("glibc", ["2.5", "2.16", "3.0"])
def test_a_glibc_that_no_wheel_is_resolved_for_is_refused_where_it_is_written(
    tmp_path: Path, glibc: str
) -> None:
    """A release that nothing can be resolved for is an error of the declaration, not of a later step."""
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "haversack.toml").write_text(
        f'[site]\nname = "s"\n[target.t]\nplatform = "linux-x86_64"\npython = "3.11"\nglibc = "{glibc}"\n'
        '[env.e]\nkind = "pip"\nrequirements = ["requirements.txt"]\ntargets = ["t"]\n'
    )
    with pytest.raises(DeclarationError, match=r"target\.t.*glibc 2\.17"):
        parse(tmp_path / "haversack.toml", kinds.keys())


@pytest.mark.parametrize("name", ["current", "-x", "2026 11", ".."])
def test_a_snapshot_gets_no_name_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    """What would be refused inside, or cannot be typed, is refused before anything is packed."""
    told = haversack("pack", "-o", tmp_path / "b", f"--name={name}", store=tmp_path / "s", cwd=tmp_path)
    assert told.returncode == 2
    assert "no name for a snapshot" in told.stderr


def test_a_volume_size_without_end_is_a_usage_error(tmp_path: Path) -> None:
    """A size that is no number of bytes is refused in words."""
    told = haversack("pack", "-o", tmp_path / "b", "--volume-size", "inf", store=tmp_path / "s", cwd=tmp_path)
    assert (told.returncode, "Traceback" in told.stderr) == (2, False)


def test_a_ledger_that_is_gone_altogether_is_noticed(tmp_path: Path) -> None:
    """Without its ledger a store that received something does not pass the audit."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store = tmp_path / "store"
    assert haversack("receive", tiny.bundle, store=store).returncode == 0
    for file in (store / "haversack").glob("ledger.jsonl*"):
        file.unlink()
    assert haversack("audit", "verify", store=store).returncode == LedgerError.exit_code


def test_a_snapshot_that_is_not_whole_is_listed_as_such(tmp_path: Path) -> None:
    """One lost description does not hide the other snapshots."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store = tmp_path / "store"
    assert haversack("receive", tiny.bundle, store=store).returncode == 0
    (store / "blobs" / "sha256" / tiny.packed.bundle.snapshot.removeprefix("sha256:")).unlink()
    told = haversack("snapshots", store=store)
    assert told.returncode == 0
    assert "not whole" in told.stdout


def test_an_index_with_a_number_that_is_none_is_an_error_in_words(tmp_path: Path) -> None:
    """A store whose index was tampered with gives the class and the place, never a traceback."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store = tmp_path / "store"
    assert haversack("receive", tiny.bundle, store=store).returncode == 0
    index = store / "index.json"
    index.write_text(index.read_text().replace('"io.haversack.sequence":"1"', '"io.haversack.sequence":"x"'))
    told = haversack("snapshots", store=store)
    assert (told.returncode, "Traceback" in told.stderr) == (IntegrityError.exit_code, False)
