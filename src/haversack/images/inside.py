"""Images inside: what they are called in the site's registry, and which of them a snapshot holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from haversack.images.reference import Reference
from haversack.model.artifact import Artifact, Digest
from haversack.model.finding import Finding
from haversack.model.snapshot import Snapshot

Held = Mapping[str, Collection[Digest]]
"""The names of a snapshot's images, as they are outside, with the digest of every manifest below each."""
WHOLE = "lock all of its platforms if its digest must stay"
"""What to do about a list of manifests that travelled in part."""


def declared(image: str) -> str:
    """A declared image as the lock names it (``library/``, ``latest``), with its digest if it has one.

    Raises :class:`ValueError` for what is no name.
    """
    reference = Reference.parse(image)
    pin = f"@{reference.digest}" if reference.tag and reference.digest else ""
    return f"{reference.name}{pin}"


def at_site(image: str, registry: str) -> str:
    """What an image is called in the site's registry: its whole name behind the registry's, with what pins it.

    Raises :class:`ValueError` for what is no name.
    """
    return f"{registry}/{as_path(declared(image))}"


def as_path(name: str) -> str:
    """A host, and what may follow it, as the path that it is in the site's registry."""
    host, slash, rest = name.partition("/")
    return f"{host.replace(':', '_')}{slash}{rest}"


def is_tagged(image: str) -> bool:
    """Whether a name says a tag."""
    return ":" in image.partition("@")[0].rpartition("/")[2]


def repository(image: str) -> str:
    """A name without tag and digest."""
    name = image.partition("@")[0]
    return name.rpartition(":")[0] if is_tagged(image) else name


def carried(content: Snapshot) -> dict[str, set[Digest]]:
    """The images of a snapshot."""
    found: dict[str, set[Digest]] = {}
    for environment in content.environments:
        there = {a.digest: a for a in environment.artifacts if a.kind == "image"}
        for artifact in there.values():
            refs = artifact.facts.get("refs")
            for ref in refs if isinstance(refs, list | tuple) else ():
                if isinstance(ref, str):
                    found.setdefault(ref, set()).update(_manifests(artifact, there))
    return found


def _manifests(root: Artifact, there: Mapping[Digest, Artifact]) -> set[Digest]:
    """The digests by which an image, or that of one of its platforms, can be asked for."""
    found, waiting = {root.digest}, [root]
    while waiting:
        children = (there.get(child) for child in waiting.pop().facts.get("children", ()))
        more = [
            c
            for c in children
            if c and c.facts.get("role") in {"index", "manifest"} and c.digest not in found
        ]
        found |= {child.digest for child in more}
        waiting += more
    return found


def holds(held: Held, image: str, called: Callable[[str], str] = str) -> bool:
    """Whether a snapshot has an image; ``called`` gives what a name of it is called where the image is asked for.

    Where a digest stands runtimes go by it alone, whatever the tag.  A name with neither is had with any tag.
    """
    _, _, digest = image.partition("@")
    for name, digests in held.items():
        there = called(name)
        if there == image or (digest in digests and repository(there) == repository(image)):
            return True
        if not digest and not is_tagged(image) and is_tagged(there) and repository(there) == image:
            return True
    return False


def repinned(content: Snapshot, image: str, subject: str) -> list[Finding]:
    """A note if an image is asked for by the digest of a list that a registry gets under another one.

    A registry takes no list whose manifests it lacks, so ``haversack push`` makes one of which only some platforms
    travelled anew; ``haversack serve`` has it as it was.
    """
    _, _, digest = image.partition("@")
    parts = [a for e in content.environments for a in e.artifacts if a.kind == "image"]
    remade = {part.digest for part in parts if part.facts.get("sparse")}
    # A list names no list that names it.
    while more := {a.digest for a in parts if remade & {*a.facts.get("children", ())}} - remade:
        remade |= more
    if digest not in remade:
        return []
    said = f"{image} names platforms that did not travel, and haversack push gives it another digest"
    return [Finding("image-sparse", subject, said, WHOLE, blocking=False)]
