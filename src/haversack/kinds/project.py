"""``[project.NAME]``: a working folder, or a git repository at a revision with its history."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from haversack.errors import DeclarationError, FetchError, NotFoundError
from haversack.formats.schema import PATH, PATH_SAYS, URL, Key, KindKeys
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, Facts, digest_of, flat_name, hex_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Outside, Store
from haversack.projects import digests, folder, git, laid, record

_SSH = r"ssh://(?:[A-Za-z0-9._-]+@)?[^@/\s]+/[^?#\s]+|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^?#\s]+"


class Project:
    """What people work on: it is laid beside its environment, as a folder that is theirs to change."""

    name = "project"
    artifacts = ("git", "file")
    relocatable = True
    keys = KindKeys(
        "A working folder or a git repository that goes along.",
        {
            "include": Key(
                "strings", "Files and folders relative to the declaration.", pattern=PATH, expects=PATH_SAYS
            ),
            "exclude": Key(
                "strings", "Patterns of what stays behind, as .gitignore has them.", only_with=("include",)
            ),
            "git": Key(
                "string",
                "Address of a repository without a password, or its path relative to the declaration.",
                pattern=rf"{URL}|{_SSH}|(?!/)[^:@\x00-\x1f\\]+",
                expects="an http, https, ssh or file URL without a password, or a relative path",
                needs=("rev",),
            ),
            "rev": Key(
                "string",
                "Tag, branch or commit, found out at lock.",
                pattern=r"(?!.*\.\.)[A-Za-z0-9_][^\s~^:?*\[\\]*",
                expects="the name of a tag or branch, or a commit",
                only_with=("git",),
            ),
            "env": Key("string", "The environment to lay beside it; without the key that of its own name."),
        },
        one_of=("include", "git"),
        stands="named",
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`: files are hashed where they stand, a repository is packed now."""
        settings = environment.settings
        beside = _beside(site, environment)
        if "include" in settings:
            return self._folder(site, environment, target, beside, out)
        return self._repository(site, environment, target, beside, held, out)

    def _folder(
        self, site: Site, environment: Environment, target: Target, beside: Mapping[str, str], out: Outside
    ) -> Locked:
        """The files of a folder, each an artifact, and its links."""
        include, ref = environment.settings["include"], f"{environment.name}/{target.name}"
        found = folder.look(site.root, include, environment.settings.get("exclude", ()), ref)
        known = digests.digests(found.files, f"projects/{environment.name}.json", out)
        artifacts = tuple(
            Artifact(
                "file",
                path,
                hex_of(told.digest)[:12],
                flat_name(path),
                told.digest,
                told.size,
                f"path:{path}",
                (ref,),
                {"path": path} | ({"executable": True} if told.executable else {}),
            )
            for path, told in known.items()
        )
        settings = {"files": len(artifacts), "links": found.links, **beside}
        locked = LockedEnvironment(environment.name, target.name, self.name, include, None, settings)
        return Locked(locked, artifacts, tuple(found.findings))

    def _repository(
        self,
        site: Site,
        environment: Environment,
        target: Target,
        beside: Mapping[str, str],
        held: Lock | None,
        out: Outside,
    ) -> Locked:
        """A repository at its revision; what was locked before is kept, also where the revision moved since."""
        url, rev = environment.settings["git"], environment.settings["rev"]
        ref, source = f"{environment.name}/{target.name}", _source(site, url)
        before, kept = _held(held, ref, url, rev)
        locked = LockedEnvironment(environment.name, target.name, self.name, (rev,), None, beside)
        place = out.cache / "git" / hex_of(digest_of(f"{environment.name} {url}".encode()))[:32]
        try:
            git.mirror(source, place, out.run)
            now = git.resolve(rev, source, place, out.run)
        except FetchError as problem:
            return Locked(locked, (), (Finding("fetch-failed", ref, str(problem), problem.remedy),))
        findings = []
        if before is not None and (now is None or now.commit != before.commit):
            message = f"{rev} is {now.commit if now else 'gone'} now, and the lock keeps {before.commit}"
            remedy = "take what it is now: haversack lock --upgrade"
            findings.append(Finding("project-moved", ref, message, remedy, blocking=False))
        revision = before or now
        if revision is None:
            where = f"haversack.toml: project.{environment.name}.rev"
            raise git.unknown(rev, url, where)
        if any(out.store.size(artifact.digest) is None for artifact in kept):
            kept = ()
        if not kept and not git.holds(revision, place, out.run):
            message = f"{url} has no commit {revision.commit} any more, which the lock names"
            remedy = "take what is there now: haversack lock --upgrade"
            return Locked(locked, (), (Finding("fetch-failed", ref, message, remedy),))
        told = {"url": url, "rev": rev, "commit": revision.commit, "head": revision.head}
        settings = {"git": {**told, "refs": dict(sorted(revision.refs.items()))}, **beside}
        locked = LockedEnvironment(environment.name, target.name, self.name, (rev,), None, settings)
        for what, remedy in git.left_behind(revision, place, out.run):
            message = f"{what} do not travel with its history"
            findings.append(Finding("project-partial", ref, message, remedy, blocking=False))
        return Locked(locked, kept or _packed(environment.name, ref, revision, place, out), tuple(findings))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`: whether a pack or its index is whole by its own check sum."""
        problem = ""
        if artifact.kind == "git":
            begin = file.read(4)
            file.seek(0)
            problem = git.wrong_pack(artifact.filename, git.sums(_chunks(file)), begin)
        elif laid.digest_of_stream(file) != artifact.digest:
            problem = "is not what its digest says"
        if not problem:
            return {}, []
        return {}, [Finding("blob-damaged", artifact.filename, problem, "run: haversack lock")]

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: a pack with its index, or as many files as were locked."""
        settings, missing = environment.locked.settings, []
        if "git" in settings:
            there = {Path(artifact.filename).suffix for artifact in environment.artifacts}
            names = {".pack": environment.locked.name, ".idx": f"{environment.locked.name} index"}
            missing = [f"{name} is not in the bundle" for end, name in names.items() if end not in there]
        elif len(environment.artifacts) != settings.get("files"):
            missing = [f"has {len(environment.artifacts)} of its {settings.get('files')} files"]
        remedy = "run: haversack lock"
        return [Finding("closure-missing", environment.ref, message, remedy) for message in missing]

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
        """See :class:`haversack.kinds.Kind`: the folder, called as the project, and a record of it beside.

        Raises ``ToolError`` where a repository is laid and there is no git.
        """
        name, settings = environment.locked.name, environment.locked.settings
        place = prefix / name
        if "git" in settings:
            packs = {artifact.filename: artifact for artifact in environment.artifacts}
            prefix.mkdir(parents=True)
            with tempfile.TemporaryDirectory(prefix=".packs-", dir=prefix) as work:
                laid.lay(packs, {}, Path(work) / "pack", inside)
                files = [Path(work) / "pack" / filename for filename in packs]
                git.check_out(_revision(settings["git"]), settings["git"]["url"], files, place, inside.run)
        else:
            paths = {str(a.facts.get("path", a.filename)): a for a in environment.artifacts}
            laid.lay(paths, settings.get("links", {}), place, inside)
        (prefix / record.RECORD).write_bytes(record.write(record.taken(name, place)))

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: without a command, whether a repository is whole, a folder as it was."""
        place, settings = prefix / environment.locked.name, environment.locked.settings
        if environment.locked.check is not None:
            return laid.checked(environment, place, inside, caged=caged)
        if "git" not in settings:
            return self.drift(environment, prefix, inside.store)
        problem = git.broken(place, settings["git"]["commit"], inside.run)
        remedy = "lock it anew: haversack lock --upgrade"
        return [Finding("rehearsal-failed", environment.ref, problem, remedy)] if problem else []

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: what was worked on since; it is people's own, and none of it blocks."""
        laid_before = record.read(prefix)
        if laid_before is None:
            raise NotFoundError("is gone", where=str(prefix / record.RECORD))
        codes = {"gone": "env-missing", "changed": "env-changed", "added": "env-extra"}
        place = prefix / environment.locked.name
        remedy = "keep it elsewhere before the project is installed again"
        return [
            Finding(
                codes[what], str(place / path), f"was {what} since it was installed", remedy, blocking=False
            )
            for path, what in record.changes(laid_before, place)
        ]


def _beside(site: Site, environment: Environment) -> dict[str, str]:
    """The environment to lay beside a project, as a setting; nothing if there is none.  Raises ``DeclarationError``."""
    if environment.name.casefold() == "env":
        raise DeclarationError(
            "a project cannot be called env, which is the folder beside it",
            where=f"haversack.toml: project.{environment.name}",
            remedy="give it another name",
        )
    known = {other.name for other in site.environments if other.targets != environment.targets}
    wanted = environment.settings.get("env")
    if wanted is None:
        return {"env": environment.name} if environment.name in known else {}
    if wanted not in known:
        raise DeclarationError(
            f"no environment is called {wanted}",
            where=f"haversack.toml: project.{environment.name}.env",
            remedy=f"declare [env.{wanted}], or correct `env`",
        )
    return {"env": wanted}


def _source(site: Site, url: str) -> str:
    """What git is given: a URL as it is, a path from where the declaration is."""
    return url if ":" in url else str((site.root / url).absolute())


def _held(
    held: Lock | None, ref: str, url: str, rev: str
) -> tuple[git.Revision | None, tuple[Artifact, ...]]:
    """The revision and artifacts that an earlier lock has of the same repository and revision."""
    for environment in held.environments if held else ():
        told = environment.settings.get("git")
        if environment.ref == ref and told and (told["url"], told["rev"]) == (url, rev):
            assert held is not None
            mine = tuple(held.by_environment()[ref])
            return _revision(told), tuple(replace(artifact, members=(ref,)) for artifact in mine)
    return None, ()


def _revision(told: Mapping[str, Any]) -> git.Revision:
    return git.Revision(told["commit"], told["refs"], told["head"])


def _packed(name: str, ref: str, revision: git.Revision, place: Path, out: Outside) -> tuple[Artifact, ...]:
    """The history of a revision, put into the store."""
    artifacts = []
    with tempfile.TemporaryDirectory(prefix="pack-", dir=out.cache) as work:
        for file in git.pack(revision, place, Path(work) / "packed", out.run):
            digest = digests.digest_of_file(file)
            file.chmod(0o444)
            with file.open("rb") as opened:
                size = out.store.add(digest, _chunks(opened), linkable=file)
            shown = name if file.suffix == ".pack" else f"{name} index"
            version, origin = revision.commit[:12], f"archive:{revision.commit}"
            artifacts.append(Artifact("git", shown, version, file.name, digest, size, origin, (ref,)))
    return tuple(artifacts)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk


KIND = Project()
