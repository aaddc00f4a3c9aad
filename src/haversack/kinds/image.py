"""``[[image]]``: container images, with their digests and lists of platforms unchanged."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from haversack.errors import DeclarationError, FetchError, IntegrityError, NotFoundError
from haversack.formats.schema import Key, KindKeys
from haversack.images import laid, layers
from haversack.images.dockerarchive import InArchive
from haversack.images.gather import Source, Wish, gather, merged
from haversack.images.manifest import CONFIGS, PLATFORM, fits, read
from haversack.images.reference import PATTERN, Reference
from haversack.images.sources import InLayout, InRegistry, platform_of
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, Digest, Facts, digest_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Manifest, Outside, Store

_AT_ONCE = 4
_ON_DISK = ("oci:", "docker-archive:")
_LARGEST = 8 << 20


class Image:
    """Images of registries, of OCI layouts and of docker's archives; installed, an OCI layout."""

    name = "image"
    artifacts = ("image",)
    relocatable = True
    keys = KindKeys(
        "A container image.",
        {
            "ref": Key(
                "string",
                "The image: host/name:tag, host/name@sha256:…, oci:FOLDER:NAME or docker-archive:FILE.",
                required=True,
                pattern=rf"(?:{PATTERN}|(?:oci|docker-archive):[^\x00-\x1f\\]+)",
                expects="the name of an image with its host, like docker.io/library/python:3.11-slim, or oci:FOLDER:NAME",
            ),
            "platforms": Key(
                "strings",
                "Platforms that are wanted; without the key those of the site's Linux targets, or all.",
                pattern=PLATFORM,
                expects="a platform like linux/amd64",
            ),
            "requires": Key("strings", "What must be in the image.", choices=(layers.PYTHON,)),
            "as": Key(
                "string",
                "What it is called inside; needed for images on disk.",
                pattern=PATTERN,
                expects="the name of an image with its host, like registry.example.org/team/app:1",
            ),
        },
        stands="listed",
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`: a tag is resolved once, and its digest kept from then on."""
        items: Sequence[Mapping[str, Any]] = environment.settings["items"]
        ref = f"{environment.name}/{target.name}"
        wishes = [_wish(item, number, site) for number, item in enumerate(items)]
        for number, wish in enumerate(wishes):
            if any(other.reference.name == wish.reference.name for other in wishes[:number]):
                raise DeclarationError(
                    f"{wish.reference.name} is the name of another image",
                    where=f"haversack.toml: image[{number}]",
                    remedy="remove one of them, or give it another name: as = …",
                )
        known = _known(held, ref)

        def one(pair: tuple[Mapping[str, Any], Wish]) -> tuple[list[Artifact], list[Finding]]:
            item, wish = pair
            name = wish.reference.name
            try:
                root, source, findings = _resolved(item["ref"], wish, known.get(name), site, out)
                found, more = gather(wish, root, source, ref)
            except (FetchError, NotFoundError) as problem:
                return [], [Finding("fetch-failed", name, str(problem), problem.remedy)]
            except IntegrityError as problem:
                return [], [Finding("image-invalid", name, str(problem), problem.remedy)]
            return found, [*findings, *more]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            results = list(pool.map(one, zip(items, wishes, strict=True)))
        roots = tuple(sorted(wish.reference.name for wish in wishes))
        locked = LockedEnvironment(environment.name, target.name, self.name, roots, environment.check)
        findings = [finding for _, more in results for finding in more]
        return Locked(locked, tuple(merged([found for found, _ in results])), tuple(findings))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`: manifests and configs are read, layers where something must be in them."""
        size = file.seek(0, 2)
        file.seek(0)
        if artifact.size is not None and size != artifact.size:
            return {}, [_invalid(artifact, f"is {size} bytes long, not {artifact.size}")]
        facts, role = artifact.facts, artifact.facts.get("role")
        try:
            if role in {"index", "manifest"}:
                told = read(Manifest(facts["media_type"], file.read(_LARGEST)), artifact.filename)
                if not set(facts["children"]) <= {part.digest for part in told.parts}:
                    return {}, [_invalid(artifact, "does not name what the lock says it names")]
            elif role == "config" and facts["media_type"] in CONFIGS:
                platform = platform_of(file.read(_LARGEST), artifact.filename)
                return ({"platform": platform} if platform else {}), []
            elif layers.PYTHON in facts.get("requires", ()):
                return layers.look(file, size), []
        except (IntegrityError, layers.UnreadableLayer) as problem:
            return {}, [_invalid(artifact, str(problem))]
        except layers.UnknownCompression as problem:
            message = f"is compressed with {problem}, which haversack cannot read: nobody knows whether Python is in it"
            remedy = "try the image before it crosses"
            return {"unread": True}, [
                Finding("image-unread", artifact.filename, message, remedy, blocking=False)
            ]
        return {}, []

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: all that manifests name is there, of the right platform, with Python in it."""
        there = {artifact.digest: artifact for artifact in environment.artifacts}
        named = {name for artifact in there.values() for name in artifact.facts.get("refs", ())}
        absent = [name for name in environment.locked.roots if name not in named]
        findings = [_lacks(environment, name, "is not in the bundle") for name in absent]
        for artifact in there.values():
            for child in artifact.facts.get("children", ()):
                if child not in there:
                    roles = "/".join(
                        f"{role}-{child[7:19]}" for role in ("layer", "config", "manifest", "index")
                    )
                    findings.append(
                        _lacks(environment, artifact.name, f"needs {child} ({roles}), which is not there")
                    )
            findings += _of_platform(artifact, there)
        for root in there.values():
            if layers.PYTHON in root.facts.get("requires", ()) and root.facts.get("refs"):
                findings += _with_python(root, there)
        return findings

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See :class:`haversack.kinds.Kind`: images borrow nothing."""
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
        """See :class:`haversack.kinds.Kind`."""
        laid.lay(_images(environment), prefix, inside.store)

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`; a layout is at home anywhere."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: without a command, whether all files are there, as installing hashed them."""
        if environment.locked.check is None:
            return laid.differences(_images(environment), prefix, hashing=False)
        with tempfile.TemporaryDirectory(prefix="haversack-check-") as folder:
            env = {"IMAGES": str(prefix)}
            done = inside.run(["sh", "-c", environment.locked.check], env=env, cwd=Path(folder), caged=caged)
        if not done.code:
            return []
        said = f"check exited with {done.code}: {(done.err + done.out).strip()[-2000:]}"
        return [Finding("rehearsal-failed", environment.ref, said, "see what it says")]

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: every blob is hashed."""
        return laid.differences(_images(environment), prefix)


def _wish(item: Mapping[str, Any], number: int, site: Site) -> Wish:
    """What one table asks for.  Raises ``DeclarationError``."""
    on_disk = item["ref"].startswith(_ON_DISK)
    if on_disk and "as" not in item:
        raise DeclarationError(
            "an image on disk has no name that others could ask for",
            where=f"haversack.toml: image[{number}]",
            remedy='give it one: as = "registry.example.org/team/app:1"',
        )
    asked = Reference.parse(item.get("as") or item["ref"])
    targets = [spec for target in site.targets if (spec := target.oci_platform).get("os") == "linux"]
    default = dict.fromkeys(f"{spec['os']}/{spec['architecture']}" for spec in targets)
    return Wish(asked, tuple(item.get("platforms", default)), tuple(item.get("requires", ())))


def _known(held: Lock | None, ref: str) -> dict[str, Digest]:
    """The digests that tags meant when they were locked before."""
    mine = [a for a in held.artifacts if ref in a.members and a.kind == "image"] if held else []
    return {name: artifact.digest for artifact in mine for name in artifact.facts.get("refs", ())}


def _resolved(
    text: str, wish: Wish, known: Digest | None, site: Site, out: Outside
) -> tuple[Manifest, Source, list[Finding]]:
    """The manifest or index that a reference means, where the rest of it is, and whether its tag has moved."""
    scheme, _, rest = text.partition(":")
    if f"{scheme}:" in _ON_DISK:
        place, _, name = rest.partition(":")
        if scheme == "oci":
            layout = InLayout(site.root, place)
            return layout.root(name or None), layout, []
        archive = InArchive(site.root / place, name or None, out.store)
        return archive.root(), archive, []
    asked = Reference.parse(text)
    source = InRegistry(asked.repository, out)
    if asked.digest:
        return source.manifest(asked.digest), source, []
    assert asked.tag is not None
    if known is None:
        return out.registries.manifest(asked.repository, asked.tag), source, []
    remedy = "to take it as it is now, run: haversack lock --upgrade"
    try:
        now = out.registries.manifest(asked.repository, asked.tag)
    except NotFoundError:
        message = "its registry has the tag no more"
    else:
        if (found := digest_of(now.data)) == known:
            return now, source, []
        message = f"the tag means {found} now"
    try:
        kept = source.manifest(known)
    except NotFoundError as problem:
        message = f"{message}, and {known}, which the lock keeps, is gone from its registry"
        raise NotFoundError(message, where=f"{asked.repository}:{asked.tag}", remedy=remedy) from problem
    moved = Finding(
        "image-moved", wish.reference.name, f"{message}; the lock keeps {known}", remedy, blocking=False
    )
    return kept, source, [moved]


def _images(environment: SnapshotEnvironment) -> list[Artifact]:
    return [artifact for artifact in environment.artifacts if artifact.kind == "image"]


def _invalid(artifact: Artifact, message: str) -> Finding:
    remedy = "ask who pushed the image to push it again"
    return Finding("image-invalid", f"{artifact.name} ({artifact.filename})", message, remedy)


def _lacks(environment: SnapshotEnvironment, subject: str, message: str) -> Finding:
    return Finding("closure-missing", f"{subject} in {environment.ref}", message, "run: haversack lock")


def _of_platform(artifact: Artifact, there: Mapping[Digest, Artifact]) -> list[Finding]:
    """A finding if a manifest is not for the platform that the list of platforms tells."""
    told = artifact.facts.get("platform") if artifact.facts.get("role") == "manifest" else None
    parts = [there[child] for child in artifact.facts.get("children", ()) if child in there]
    says = next((part.facts.get("platform") for part in parts if part.facts.get("role") == "config"), None)
    # The config is what a runtime goes by; some lists tell a variant that it leaves out.
    if not told or not says or fits("/".join(told.split("/")[:2]), says):
        return []
    message = f"is listed for {told}, and its config says {says}"
    return [Finding("image-platform", artifact.name, message, "ask who pushed the image to push it again")]


def _with_python(root: Artifact, there: Mapping[Digest, Artifact]) -> list[Finding]:
    """A finding for each platform of an image that has no Python 3, and for each name that it must have it under."""
    waiting, found = [root], []
    while waiting:
        artifact = waiting.pop()
        children = [there[child] for child in artifact.facts.get("children", ()) if child in there]
        if artifact.facts.get("role") == "index":
            waiting += children
        elif artifact.facts.get("platform"):
            parts = [child.facts for child in children if child.facts.get("role") == "layer"]
            # Another entry may have the same list of platforms, and others of them.
            asked = all(layers.PYTHON in facts.get("requires", ()) for facts in parts)
            if asked and not layers.pythons(parts) and not any(facts.get("unread") for facts in parts):
                message = f"has no Python 3 where it could be found ({artifact.facts['platform']})"
                for name in root.facts.get("required_by", [root.name]):
                    remedy = f"name an image with Python 3 instead of {name}, or remove `requires` there"
                    found.append(Finding("image-python", name, message, remedy))
    return found


KIND = Image()
