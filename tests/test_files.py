"""Declared files: taken once and pinned, called what their consumers know them by, laid as they are."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from haversack.errors import DeclarationError, FetchError, IntegrityError
from haversack.formats import deb, lockfile, vsix
from haversack.kinds import Locked
from haversack.kinds.file import KIND
from haversack.model.artifact import Artifact, digest_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.snapshot import Snapshot, SnapshotEnvironment, diff
from haversack.model.target import ANY
from haversack.ports.fetch import HttpFetch
from haversack.verbs import collect
from haversack.verbs.install import install
from tests.support import tiny
from tests.support.index import Index
from tests.support.packages import make_deb, make_vsix
from tests.support.packed import received
from tests.support.site import Lab


def declare(lab: Lab, *tables: str) -> None:
    """A site of files alone."""
    files = "".join(f"[[file]]\n{table}\n" for table in tables)
    lab.write(
        "haversack.toml",
        f'[site]\nname = "lab"\n[index.main]\nurl = "{lab.index.url}"\ndefault = true\n{files}',
    )


def lock_of(locked: Locked) -> Lock:
    """A lock of one environment alone."""
    return Lock("lab", digest_of(b""), (ANY,), (locked.environment,), merge_artifacts(locked.artifacts))


def collected(lab: Lab, locked: Locked) -> None:
    """Bring what was locked into the store."""
    site = lab.site()
    out = lab.outside(site)
    lock = lock_of(locked)
    collect.collect(lock, site.root, collect.plan(lock, out), out)


def test_a_file_without_a_digest_is_taken_once_and_pinned(tmp_path: Path) -> None:
    """The first lock fetches it, for collect too; a later one asks nobody, and --upgrade takes it anew."""
    with Lab(tmp_path) as lab:
        file = lab.wheels / "model.bin"
        file.write_bytes(b"one" * 1000)
        declare(lab, f'url = "{lab.index.file_url("model.bin")}"')
        (first,) = lab.lock_kind()
        (artifact,) = first.artifacts
        assert (artifact.kind, artifact.name, artifact.filename) == ("file", "model.bin", "model.bin")
        assert (artifact.digest, artifact.size) == (digest_of(b"one" * 1000), 3000)
        assert artifact.origin == lab.index.file_url("model.bin")
        before = len(lab.index.asked("model.bin", "GET"))
        collected(lab, first)
        assert len(lab.index.asked("model.bin", "GET")) == before == 1
        file.write_bytes(b"two" * 1000)
        (again,) = lab.lock_kind(lock_of(first))
        assert again.artifacts == first.artifacts
        (upgraded,) = lab.lock_kind()
        assert upgraded.artifacts[0].digest == digest_of(b"two" * 1000)


def test_a_file_that_changed_upstream_does_not_cross(tmp_path: Path) -> None:
    """The lock's hash is right, and that is said; so it is of a hash that a person wrote."""
    with Lab(tmp_path) as lab:
        file = lab.wheels / "model.bin"
        file.write_bytes(b"one")
        declare(
            lab, f'url = "{lab.index.file_url("model.bin")}"\nsha256 = "{hashlib.sha256(b"two").hexdigest()}"'
        )
        (locked,) = lab.lock_kind()
        with pytest.raises(IntegrityError) as caught:
            collected(lab, locked)
        (finding,) = caught.value.findings
        assert "the lock's hash is right, the host's file changed" in finding.message
        assert "haversack lock --upgrade" in finding.remedy


def test_a_host_that_sends_without_an_end_is_stopped(tmp_path: Path) -> None:
    """Once a file was locked its size is known: no more is taken, and nothing of it stays."""
    with Lab(tmp_path) as lab:
        (lab.wheels / "model.bin").write_bytes(b"one" * 1000)
        declare(lab, f'url = "{lab.index.file_url("model.bin")}"')
        (first,) = lab.lock_kind()
        partial = lab.outside(lab.site()).cache / "partial"
        for left in partial.iterdir():
            left.unlink()
        lab.index.fault("model.bin", endless=True)
        with pytest.raises(IntegrityError) as caught:
            collected(lab, first)
        (finding,) = caught.value.findings
        assert "sent more than the 3000 bytes" in finding.message
        assert list(partial.iterdir()) == []


def test_a_file_at_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """A relative path is read at each lock; between lock and pack it must not change."""
    with Lab(tmp_path) as lab:
        lab.write("tools/notes.txt", "one")
        declare(lab, 'url = "tools/notes.txt"')
        (first,) = lab.lock_kind()
        assert first.artifacts[0].origin == "path:tools/notes.txt"
        lab.write("tools/notes.txt", "two")
        with pytest.raises(IntegrityError) as caught:
            collected(lab, first)
        (finding,) = caught.value.findings
        assert "changed since it was locked" in finding.message
        assert finding.remedy == "run: haversack lock"
        (again,) = lab.lock_kind(lock_of(first))
        collected(lab, again)


def test_a_wrong_digest_of_a_local_file_is_found_at_lock(tmp_path: Path) -> None:
    """What is declared and what is there are compared where both are at hand."""
    with Lab(tmp_path) as lab:
        lab.write("notes.txt", "one")
        declare(lab, f'url = "notes.txt"\nsha256 = "{"0" * 64}"')
        ((code, text),) = lab.findings()
        assert code == "blob-damaged"
        assert "is declared" in text


def test_a_host_without_the_file_is_a_finding(tmp_path: Path) -> None:
    """Other files are locked all the same, and the address is named."""
    with Lab(tmp_path) as lab:
        lab.write("notes.txt", "one")
        declare(lab, 'url = "notes.txt"', f'url = "{lab.index.file_url("absent.bin")}"')
        (locked,) = lab.lock_kind()
        assert [artifact.filename for artifact in locked.artifacts] == ["notes.txt"]
        assert [(finding.code, finding.subject) for finding in locked.findings] == [
            ("fetch-failed", "absent.bin")
        ]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (['url = "https://h.example/a/tool.deb"\nname = "tool"'], "does not end in .deb"),
        (['url = "https://h.example/a/x.vsix?"'], "plain URL"),
        (['url = "https://h.example/a/x.VSIX"\nname = "x.zip"'], "does not end in .vsix"),
        (['url = "https://h.example/a/"'], "not a name"),
        (['url = "https://h.example/..%2f..%2fpasswd"'], "not a name"),
        (['url = "https://h.example/a"\nname = "../a"'], "not a name"),
        (['url = "https://h.example/a"\nname = "SHA256SUMS"'], "not a name"),
        (['url = "https://h.example/a"\nname = "nul"'], "not a name"),
        (['url = "https://h.example/x/a.bin"', 'url = "https://h.example/y/A.bin"'], "file[0] (a.bin) and file[1] (A.bin)"),
        (['url = "https://ada:hunter2@h.example/a"'], "a user name or a password"),
        (['url = "ftp://h.example/a"'], "plain URL"),
        (['url = "s3://bucket/a b"'], "https, file, s3"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_are_refused(tmp_path: Path, tables: list[str], said: str) -> None:
    """A name must be one on every file system, keep its suffix, and be nobody else's; no secret is repeated."""
    with Lab(tmp_path) as lab:
        declare(lab, *tables)
        with pytest.raises(DeclarationError) as caught:
            lab.lock_kind()
        assert said in str(caught.value)
        assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_the_name_is_the_last_part_of_the_address(tmp_path: Path) -> None:
    """Percent signs are read, and a name that is written wins."""
    with Lab(tmp_path) as lab:
        (lab.wheels / "a b.bin").write_bytes(b"x")
        (lab.wheels / "vspackage").write_bytes(b"y")
        url = lab.index.file_url("a b.bin").replace(" ", "%20")
        declare(lab, f'url = "{url}"', f'url = "{lab.index.file_url("vspackage")}"\nname = "ext.vsix"')
        (locked,) = lab.lock_kind()
        assert [artifact.filename for artifact in locked.artifacts] == ["a b.bin", "ext.vsix"]


# Packages


def looked(path: Path, name: str = "") -> tuple[dict[str, object], list[Finding]]:
    """What inspecting a file says."""
    data = path.read_bytes()
    artifact = Artifact("file", path.name, "", name or path.name, digest_of(data), len(data), "path:x")
    facts, findings = KIND.inspect(artifact, io.BytesIO(data))
    return dict(facts), findings


@pytest.mark.parametrize("packing", ["gzip", "xz", "none"])
def test_a_debian_package_is_known_by_its_own_words(tmp_path: Path, packing: str) -> None:
    """Name, version with its epoch, and architecture come from the control file, however it is packed."""
    path = make_deb(tmp_path / "some.deb", "code-server", "1:4.96.2-1", "arm64", packing=packing)
    facts, findings = looked(path)
    assert not findings
    assert facts == {
        "package": {"format": "deb", "name": "code-server", "version": "1:4.96.2-1", "architecture": "arm64"}
    }


def test_a_package_that_python_cannot_unpack_is_known_by_its_name(tmp_path: Path) -> None:
    """A control archive in zstd is not read; the file's name says what it can."""
    path = make_deb(tmp_path / "tool_1.2_amd64.deb", "tool", "1.2", packing="zstd")
    facts, findings = looked(path)
    assert not findings
    assert facts["package"] == deb.named("tool_1.2_amd64.deb")


def test_an_extension_is_known_by_its_own_words(tmp_path: Path) -> None:
    """Publisher, name, version, and the platform of one that is not for all."""
    for platform in ("", "linux-x64"):
        path = make_vsix(tmp_path / "x.vsix", "ms-python", "python", "2026.4.1", platform)
        facts, findings = looked(path)
        assert not findings
        told = {"name": "ms-python.python", "version": "2026.4.1", "architecture": platform}
        assert facts == {"package": {"format": "vsix", **told}}
    assert vsix.named("ms-python.python-2026.4.1@linux-x64.vsix") == {"format": "vsix", **told}


def test_no_extension_takes_long_to_read(tmp_path: Path) -> None:
    """A manifest that begins its identity again and again, and never ends it, is read once."""
    path = tmp_path / "x.vsix"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("extension/package.json", '{"publisher": "a", "name": "b", "version": "1.0.0"}')
        archive.writestr("extension.vsixmanifest", "<Identity " * 200_000)
    begun = time.process_time()
    with path.open("rb") as file:
        assert vsix.read(file)["architecture"] == ""
    assert time.process_time() - begun < 2


def test_what_is_not_what_its_name_says_is_found(tmp_path: Path) -> None:
    """A page of HTML called .deb, a zip file called .vsix, a package under another name: each blocks."""
    page = tmp_path / "page.deb"
    page.write_bytes(b"<html>please log in</html>")
    package = make_deb(tmp_path / "tool.deb", "tool", "1")
    cut = tmp_path / "cut.deb"
    cut.write_bytes(package.read_bytes()[:-200])
    extension = make_vsix(tmp_path / "x.vsix", "a", "b", "1.0.0")
    no_package = tmp_path / "zip.vsix"
    no_package.write_bytes(b"PK\x05\x06" + bytes(18))
    for path, name, code in (
        (page, "", "file-invalid"),
        (cut, "", "file-invalid"),
        (no_package, "", "file-invalid"),
        (package, "tool.bin", "file-name"),
        (extension, "x.zip", "file-name"),
    ):
        _, (finding,) = looked(path, name)
        assert (finding.code, finding.blocking) == (code, True), path


def test_a_package_that_swells_is_not_unpacked_to_its_end(tmp_path: Path) -> None:
    """A control archive of a gigabyte of zeros is refused within its bound."""
    import lzma

    packed = lzma.compress(bytes(64 << 20), preset=0)
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", packed), ("data.tar", b"")]
    data = deb.MAGIC + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
        + body
        + b"\n" * (len(body) % 2)
        for name, body in members
    )
    with pytest.raises(deb.BrokenDebError, match="unpacks to more"):
        deb.read(io.BytesIO(data))


def test_differences_name_packages_and_not_files(tmp_path: Path) -> None:
    """Between two snapshots a package changed its version, although its file changed its name."""

    def environment(version: str) -> SnapshotEnvironment:
        package = {"format": "deb", "name": "tool", "version": version, "architecture": "amd64"}
        name, digest = f"tool_{version}_amd64.deb", digest_of(version.encode())
        artifact = Artifact("file", name, version, name, digest, 7, "path:x", (), {"package": package})
        locked = LockedEnvironment("files", "any", "file", (name,))
        return SnapshotEnvironment(locked, ANY, (artifact,), digest)

    old, new = (Snapshot(digest_of(b""), digest_of(b""), (environment(v),), (), {}) for v in ("1.0", "1.1"))
    (change,) = diff(old, new)
    assert (change.ref, change.name, change.old, change.new) == ("files/any", "tool:amd64", "1.0", "1.1")


def test_differences_tell_files_of_the_same_bytes_apart(tmp_path: Path) -> None:
    """Where two files are equal before or after, each one's change is told as what it is."""

    def holding(**files: str) -> Snapshot:
        made = tuple(
            Artifact("file", name, text, name, digest_of(text.encode()), len(text), "path:x")
            for name, text in files.items()
        )
        locked = LockedEnvironment("files", "any", "file", tuple(files))
        manifest = digest_of(repr(files).encode())
        return Snapshot(manifest, manifest, (SnapshotEnvironment(locked, ANY, made, manifest),), (), {})

    one, two, three = holding(a="same", b="same"), holding(a="other", b="same"), holding(a="other", b="other")

    def told(old: Snapshot, new: Snapshot) -> list[tuple[str, str | None, str | None]]:
        return [(change.name, change.old, change.new) for change in diff(old, new)]

    assert told(one, two) == [("a", "same", "other")]
    assert told(one, three) == [("a", "same", "other"), ("b", "same", "other")]
    assert told(two, three) == [("b", "same", "other")]


# Fetching what nobody knows yet


def fetcher() -> HttpFetch:
    """A fetch that gives up soon."""
    return HttpFetch(lambda _: None, attempts=3, timeout=2, backoff=0.01)


BODY = bytes(range(256)) * 2000


def test_a_download_that_broke_off_goes_on_where_the_host_has_the_same_file(tmp_path: Path) -> None:
    """With an ETag the rest is asked for, under the condition that the file is still that one."""
    with Index({"big.bin": BODY}) as index:
        index.fault("/files/big", headers={"ETag": '"one"'})
        index.fault("/files/big", truncate_at=100_000, times=1)
        digest = fetcher().take(index.file_url("big.bin"), tmp_path / "file", lambda _: None)
        assert digest == digest_of(BODY)
        first, second = index.asked("big.bin", "GET")
        assert (first.range, second.range) == (None, "bytes=100000-")
        assert second.headers["if-range"] == '"one"'


def test_a_download_that_broke_off_starts_over_where_nobody_says_what_the_rest_is_of(tmp_path: Path) -> None:
    """Without a word on versions, or with another one, no two bodies are joined."""
    with Index({"big.bin": BODY}) as index:
        index.fault("/files/big", truncate_at=100_000, times=1)
        assert fetcher().take(index.file_url("big.bin"), tmp_path / "file", lambda _: None) == digest_of(BODY)
        assert [request.range for request in index.asked("big.bin", "GET")] == [None, None]
    with Index({"big.bin": BODY}) as index:
        index.fault("/files/big", truncate_at=100_000, headers={"ETag": '"one"'}, times=1)
        # A host that gives a part of another file, whatever the condition was.
        index.fault("/files/big", headers={"ETag": '"two"'})
        told: list[int] = []
        assert fetcher().take(index.file_url("big.bin"), tmp_path / "file", told.append) == digest_of(BODY)
        assert sum(told) == len(BODY)
        assert [request.range for request in index.asked("big.bin", "GET")] == [None, "bytes=100000-", None]


def test_a_host_that_never_gives_all_of_it_is_given_up(tmp_path: Path) -> None:
    """Each try is cut off: the error names the address."""
    with Index({"big.bin": BODY}) as index:
        index.fault("/files/big", truncate_at=1000)
        with pytest.raises(FetchError, match="3 attempts"):
            fetcher().take(index.file_url("big.bin"), tmp_path / "file", lambda _: None)


def test_a_file_that_is_packed_for_the_way_is_refused(tmp_path: Path) -> None:
    """Packed bytes would be pinned as the file; of a file that is packed itself many servers say so, and it is taken."""
    with Index({"model.bin": BODY, "model.tar.gz": BODY}) as index:
        for name in ("model.bin", "model.tar.gz"):
            index.fault(f"/files/{name}", headers={"Content-Encoding": "gzip"})
        with pytest.raises(FetchError, match="packed with 'gzip'"):
            fetcher().take(index.file_url("model.bin"), tmp_path / "file", lambda _: None)
        assert fetcher().take(index.file_url("model.tar.gz"), tmp_path / "x", lambda _: None) == digest_of(
            BODY
        )


# Laid


def test_files_are_laid_side_by_side_with_their_check_sums(tmp_path: Path) -> None:
    """The whole way: sha256sum -c is content, files are people's own copies, and drift is seen."""
    with Lab(tmp_path) as lab:
        make_deb(lab.wheels / "tool_1.2_amd64.deb", "tool", "1.2")
        lab.write("notes.txt", "read me\n")
        declare(lab, f'url = "{lab.index.file_url("tool_1.2_amd64.deb")}"', 'url = "notes.txt"')
        lab.lock()
        held = lockfile.read((lab.root / "haversack.lock").read_bytes(), "lock")[0]
        assert "files/any" in [environment.ref for environment in held.environments]
        assert lab("pack", "-o", tmp_path / "bundle").returncode == 0
        received(tmp_path)
        inside = tiny.inside(tmp_path / "inside")
        done = install("files", tmp_path / "laid", inside)
        assert (done.ref, done.artifacts) == ("files/any", 2)
        summed = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "laid", capture_output=True)
        assert summed.returncode == 0
        (tmp_path / "laid" / "notes.txt").write_text("mine\n")
        found = tiny.haversack("doctor", "--env", tmp_path / "laid", store=tmp_path / "inside")
        assert "[env-changed]" in found.stderr
        assert inside.store.size(digest_of(b"read me\n")) == 8
        assert (
            os.stat(inside.store.path(digest_of(b"read me\n"))).st_ino
            != (tmp_path / "laid" / "notes.txt").stat().st_ino
        )
