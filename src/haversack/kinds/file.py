"""``[[file]]``: single files by their addresses, under the names that their consumers know them by."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from haversack.errors import DeclarationError, FetchError
from haversack.formats import deb, prefixes, vsix
from haversack.formats.schema import Key, KindKeys
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, Digest, Facts, hex_of, is_safe_filename
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Outside, Store
from haversack.projects import digests, laid

SUMS = "SHA256SUMS"
"""The file beside them that ``sha256sum -c`` reads."""
# By these their consumers know them: dpkg and apt, code --install-extension, pip and uv, conda.
_KEPT = (".deb", ".vsix", ".whl", ".conda", ".tar.bz2", ".rpm")
_RESERVED = {SUMS.casefold(), prefixes.MARKER.casefold()}


class File:
    """Debian packages, editor extensions, models, archives: whatever is one file and needs no installer here."""

    name = "file"
    artifacts = ("file",)
    relocatable = True
    keys = KindKeys(
        "A file that crosses under a name of its own.",
        {
            "url": Key(
                "source", "Address of the file, or its path relative to the declaration.", required=True
            ),
            "name": Key("string", "Its name inside; without the key the last part of the address."),
            "sha256": Key(
                "string",
                "SHA-256 of the file; without the key it is taken when the file is first locked, and kept.",
                pattern="[0-9a-f]{64}",
                expects="64 lower-case hexadecimal digits",
            ),
        },
        stands="listed",
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`: a file without a digest is fetched once, and stays for collect."""
        items = _named(environment.settings["items"])
        ref = f"{environment.name}/{target.name}"
        kept = {(a.filename, a.origin): a for a in held.artifacts if ref in a.members} if held else {}
        local = {name: site.root / item["url"][5:] for name, item in items.items() if _is_local(item)}
        read = digests.digests(local, f"projects/{environment.name}.files.json", out)

        def one(name: str) -> Artifact | Finding:
            item = items[name]
            before = kept.get((name, item["url"]))
            size = None
            if name in read:
                digest, size = read[name].digest, read[name].size
                if item.get("sha256", hex_of(digest)) != hex_of(digest):
                    message = f"has the digest {digest}, and {item['sha256']} is declared"
                    return Finding(
                        "blob-damaged", name, message, "find out who changed it, or declare its own"
                    )
            elif "sha256" in item:
                digest = f"sha256:{item['sha256']}"
                size = before.size if before and before.digest == digest else None
            elif before:
                digest, size = before.digest, before.size
            else:
                try:
                    digest, size = _taken(item["url"], out)
                except FetchError as problem:
                    return Finding("fetch-failed", name, str(problem), problem.remedy)
            told = deb.named(name) or vsix.named(name) or {}
            version = told.get("version", hex_of(digest)[:12])
            return Artifact("file", name, version, name, digest, size, item["url"], (ref,))

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(one, items))
        locked = LockedEnvironment(environment.name, target.name, self.name, tuple(items))
        artifacts = tuple(each for each in found if isinstance(each, Artifact))
        return Locked(locked, artifacts, tuple(each for each in found if isinstance(each, Finding)))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`: what package it is, if it is one that is known here."""
        whole = laid.digest_of_stream(file)
        if whole != artifact.digest:
            return {}, [Finding("blob-damaged", artifact.filename, f"is {whole}", "lock it again")]
        file.seek(0)
        package, finding = _package(artifact.filename, file)
        # A file of a project is nobody's package here, whatever it is called.
        if finding and "path" not in artifact.facts:
            return {}, [finding]
        return {"package": package} if package else {}, []

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: every file that was declared is there."""
        there = {artifact.filename for artifact in environment.artifacts}
        return [
            Finding("closure-missing", environment.ref, f"{name} is not in the bundle", "run: haversack lock")
            for name in environment.locked.roots
            if name not in there
        ]

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See :class:`haversack.kinds.Kind`: no Python."""
        return None

    def install(
        self,
        environment: SnapshotEnvironment,
        prefix: Path,
        python: Path | None,
        inside: Inside,
        *,
        home: Path,
        compile_bytecode: bool,
    ) -> None:
        """See :class:`haversack.kinds.Kind`: the files side by side, copied, and ``SHA256SUMS``."""
        places = {artifact.filename: artifact for artifact in environment.artifacts}
        laid.lay(places, {}, prefix, inside)
        lines = [f"{hex_of(artifact.digest)}  {name}\n" for name, artifact in sorted(places.items())]
        (prefix / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: without a command, whether every file is what its digest says."""
        if environment.locked.check is not None:
            return laid.checked(environment, prefix, inside, caged=caged)
        return self.drift(environment, prefix, inside.store)

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`."""
        remedy = f"haversack install {environment.locked.name} --to {prefix}"
        found = []
        for artifact in environment.artifacts:
            place = prefix / artifact.filename
            if not place.is_file():
                found.append(Finding("env-missing", str(place), "is gone", remedy))
            elif digests.digest_of_file(place) != artifact.digest:
                found.append(Finding("env-changed", str(place), "is not what was installed", remedy))
        known = {SUMS, prefixes.MARKER, *(artifact.filename for artifact in environment.artifacts)}
        found += [
            Finding("env-extra", str(place), "is not of the files", "move it elsewhere", blocking=False)
            for place in sorted(prefix.iterdir())
            if place.name not in known
        ]
        return found


def name_of(item: Mapping[str, Any]) -> str:
    """What a declared file is called inside."""
    return str(item.get("name", _last(item)))


def _last(item: Mapping[str, Any]) -> str:
    """The last part of the address of a declared file."""
    if _is_local(item):
        return posixpath.basename(str(item["url"]).removeprefix("path:"))
    return unquote(posixpath.basename(urlsplit(str(item["url"])).path))


def _is_local(item: Mapping[str, Any]) -> bool:
    return str(item["url"]).startswith("path:")


def _named(items: tuple[Mapping[str, Any], ...]) -> dict[str, Mapping[str, Any]]:
    """The declared files by their names.  Raises ``DeclarationError``."""
    found: dict[str, Mapping[str, Any]] = {}
    folded: dict[str, tuple[int, str]] = {}
    for number, item in enumerate(items):
        where = f"haversack.toml: file[{number}]"
        last, name = _last(item), name_of(item)
        if not is_safe_filename(name) or name.casefold() in _RESERVED:
            raise DeclarationError(
                f"{name!r} is not a name that a file may have inside",
                where=where,
                remedy="give it a plain `name`",
            )
        suffix = next((suffix for suffix in _KEPT if last.lower().endswith(suffix)), "")
        if not name.lower().endswith(suffix):
            raise DeclarationError(
                f"{name} does not end in {suffix}, by which what it is for will know it",
                where=where,
                remedy=f"let `name` end in {suffix}",
            )
        first, other = folded.setdefault(name.casefold(), (number, name))
        if first != number:
            raise DeclarationError(
                f"file[{first}] ({other}) and file[{number}] ({name}) have one name",
                where=where,
                remedy="give one of them another `name`",
            )
        found[name] = item
    return found


def _taken(url: str, out: Outside) -> tuple[Digest, int]:
    """Digest and size of a file that nobody knows yet; it stays where collect looks for it."""
    folder = out.cache / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="new-", dir=folder) as aside,
        out.progress(
            f"fetching {posixpath.basename(urlsplit(url).path)}", out.fetch.size(url) or 0
        ) as advance,
    ):
        file = Path(aside) / "file"
        digest = out.fetch.take(url, file, advance)
        size = file.stat().st_size
        file.replace(folder / hex_of(digest))
    return digest, size


def _package(name: str, file: BinaryIO) -> tuple[Mapping[str, str] | None, Finding | None]:
    """What package a file is, and what is wrong with it as such."""
    begin = file.read(68)
    file.seek(0)
    is_deb = begin.startswith(deb.MAGIC + b"debian-binary")
    try:
        if name.lower().endswith(".deb"):
            told = deb.read(file)
            return told or deb.named(name), None
        if name.lower().endswith(".vsix"):
            return vsix.read(file), None
    except (deb.BrokenDebError, vsix.BrokenVsixError) as problem:
        kind = "Debian package" if name.lower().endswith(".deb") else "VS Code extension"
        message = f"is no {kind}: {problem}"
        remedy = "correct its address, or its name if it is something else"
        return None, Finding("file-invalid", name, message, remedy)
    if is_deb:
        message = "is a Debian package, and its name does not end in .deb"
        return None, Finding("file-name", name, message, "give it a `name` that ends in .deb")
    if begin.startswith(b"PK\x03\x04") and _is_extension(file):
        message = "is a VS Code extension, and its name does not end in .vsix"
        return None, Finding("file-name", name, message, "give it a `name` that ends in .vsix")
    return None, None


def _is_extension(file: BinaryIO) -> bool:
    try:
        vsix.read(file)
    except vsix.BrokenVsixError:
        return False
    return True


KIND = File()
