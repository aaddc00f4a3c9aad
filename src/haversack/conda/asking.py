"""What conda environments ask channels for, and how a refusal is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from haversack.errors import DeclarationError, FetchError, ResolutionError
from haversack.formats import repodata
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding
from haversack.model.lock import Lock
from haversack.model.site import Site
from haversack.model.target import Target
from haversack.ports import Outside, Wish

# Which key of a target says what a virtual package says.
_TOLD_BY = {
    "__cuda": "cuda",
    "__glibc": "glibc",
    "__osx": "macos",
    "__linux": "kernel",
    "__archspec": "archspec",
}
# What a program answers when a channel is called that has no name of its own (conda's default channels).
_SEVERAL = "defaults"


def channel_url(name: str, site: Site, where: str) -> str:
    """The URL of a channel as an environment calls it: a declared name, a public one, or a URL.

    Raises ``DeclarationError`` for one that cannot be asked, without repeating a URL that may hold a secret.
    """
    for channel in site.channels:
        if channel.name == name:
            return repodata.plain_url(channel.url)
    if name == _SEVERAL:
        raise DeclarationError(
            "the channel `defaults` stands for several channels of a vendor, with terms of their own",
            where=where,
            remedy="name the channels you may use, or declare [channel.defaults] with a url",
        )
    if "://" in name:
        try:
            plain = repodata.plain_url(name)
        except ValueError as problem:
            raise DeclarationError(
                f"a channel {problem}", where=where, remedy="write its plain address"
            ) from None
        if plain != name.rstrip("/"):
            raise DeclarationError(
                "the address of a channel holds a user name, a password, a token or a query",
                where=where,
                remedy='declare [channel.NAME] with url and auth = "env", "netrc" or "keyring", and call it NAME',
            )
        return plain
    from rattler import Channel
    from rattler.exceptions import InvalidChannelError

    from haversack.conda import engine

    try:
        with engine.guarded("reading the name of a channel"):
            return repodata.plain_url(Channel(name).base_url)
    except (InvalidChannelError, ValueError):
        # What stands before an @ may be a password.
        called = "a channel" if "@" in name else f"{name!r}"
        raise DeclarationError(
            f"{called} is neither the name nor the address of a channel",
            where=where,
            remedy="write the name of a [channel] table, that of a public channel, or a URL",
        ) from None


def wish(
    site: Site,
    channels: Sequence[str],
    specs: Iterable[str],
    target: Target,
    held: Sequence[Artifact],
    settings: Mapping[str, Any],
) -> Wish:
    """What to solve for a target; ``held`` are the packages to keep where that is possible."""
    return Wish(
        channels=tuple(channels),
        subdir=target.subdir,
        specs=tuple(specs),
        virtual_packages=target.virtual_packages(),
        held=tuple(repodata.record_of(artifact) for artifact in held),
        exclude_newer=settings.get("exclude_newer", site.exclude_newer),
        strict=settings.get("channel_priority", "strict") == "strict",
    )


def held_by(held: Lock | None, ref: str) -> list[Artifact]:
    """The conda packages that an environment had in the lock before."""
    return [a for a in held.artifacts if a.kind == "conda" and ref in a.members] if held else []


def solve(question: Wish, target: Target, ref: str, out: Outside) -> tuple[list[Artifact], list[Finding]]:
    """The packages that answer a wish, or why there are none."""
    try:
        return to_artifacts(out.channels.solve(question), ref)
    except ResolutionError as problem:
        return [], [refusal(problem.message, target, ref)]
    except FetchError as problem:
        return [], [Finding("fetch-failed", ref, str(problem), problem.remedy)]


def refusal(reason: str, target: Target, ref: str) -> Finding:
    """The solver's reason in plain words, with what the target lacks named."""
    has = {package.name: package.version for package in target.virtual_packages()}
    told, keys = [], []
    for name, wanted in re.findall(r"(__[a-z0-9]+)([^,\n]*), for which no candidates", reason):
        mine = f"has {name} {has[name]}" if name in has else f"has no {name}"
        told.append(f"{name}{wanted.rstrip()} is wanted, and the target {target.name} {mine}")
        keys += [_TOLD_BY[name]] if name in _TOLD_BY else []
    remedy = "relax what the reason names, or add the channel that has it"
    if keys:
        machine = " and ".join(dict.fromkeys(keys))
        remedy = f"set {machine} of the target to what the machines have, or ask for a build that needs less"
    return Finding("no-solution", ref, "; ".join([*dict.fromkeys(told), reason]), remedy)


def to_artifacts(records: Iterable[Mapping[str, Any]], ref: str) -> tuple[list[Artifact], list[Finding]]:
    """Records as artifacts of an environment; one that nobody gives a sha256 is a finding."""
    made = [repodata.artifact_of(record, ref) for record in records]
    return (
        [one for one in made if isinstance(one, Artifact)],
        [one for one in made if isinstance(one, Finding)],
    )
