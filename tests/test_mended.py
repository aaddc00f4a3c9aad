"""Ways in which the outside half once went wrong, each held shut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import kinds
from haversack.errors import DeclarationError, IntegrityError, LedgerError, RollbackError, UsageError
from haversack.formats import requirements, uvlock
from haversack.formats.declaration import parse
from haversack.ports.media import FolderWriter
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


@pytest.mark.parametrize("junk", [b"junk", None])
def test_receiving_again_replaces_a_damaged_blob(tmp_path: Path, junk: bytes | None) -> None:
    """Whether its size changed or not, a damaged blob is made whole by the bundle that brought it, on record."""
    tiny = tiny_bundle(tmp_path / "tiny")
    store = tmp_path / "store"
    assert haversack("receive", "--copy", tiny.bundle, store=store).returncode == 0
    digest = tiny.lock.artifacts[0].digest
    blob = store / "blobs" / "sha256" / digest.removeprefix("sha256:")
    truth = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(junk if junk is not None else bytes(len(truth)))

    told = haversack("receive", tiny.bundle, store=store)

    assert told.returncode == 0
    assert "replaced from the bundle" in told.stderr
    assert blob.read_bytes() == truth
    acts = json.loads(haversack("audit", "show", "--json", store=store).stdout)
    assert [(act["act"], act["subject"]) for act in acts][-1] == ("mend", digest)


def test_an_older_bundle_brings_back_only_what_was_lost_of_it(tmp_path: Path) -> None:
    """After a newer bundle the one before restores its own lost blob, and does not become current."""
    first = tiny_bundle(tmp_path / "first", name="2026-10")
    second = tiny_bundle(tmp_path / "second", names=("alpha==1.1", "beta"), base=first)
    store = tmp_path / "store"
    for tiny in (first, second):
        assert haversack("receive", tiny.bundle, store=store).returncode == 0
    assert haversack("receive", first.bundle, store=store).returncode == RollbackError.exit_code
    digest = next(a.digest for a in first.lock.artifacts if a.name == "beta")
    (store / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()

    assert haversack("receive", first.bundle, store=store).returncode == 0

    listed = json.loads(haversack("snapshots", "--json", store=store).stdout)
    assert [s["name"] for s in listed if s["current"]] == ["2026-11"]
    assert haversack("doctor", store=store).returncode == 0


def test_packing_into_a_folder_of_hidden_files_deletes_none(tmp_path: Path) -> None:
    """A folder that holds only hidden things is not empty: what a person hid there stays."""
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "id").write_text("secret")
    with pytest.raises(UsageError, match="not an empty folder"):
        FolderWriter(tmp_path / "home")
    assert (tmp_path / "home" / ".ssh" / "id").read_text() == "secret"


def test_leftovers_of_a_killed_pack_are_cleared(tmp_path: Path) -> None:
    """What a pack wrote aside before it was killed does not keep the next one from writing there."""
    (tmp_path / "out" / ".volume-001.partial" / "blobs").mkdir(parents=True)
    FolderWriter(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
