"""``haversack.lock``: JSON with one artifact a line, so that a git diff reads (docs/spec/lock.md)."""

from __future__ import annotations

import json
from typing import Any

from haversack.errors import LockError
from haversack.formats.canonical import Fields, check_version, parse
from haversack.model.artifact import Artifact, is_safe_filename
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.target import Target

VERSION = "1.0"
FILENAME = "haversack.lock"
_REMEDY = "run: haversack lock"


def artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    """An artifact as the lock and an environment's config write it."""
    record: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "filename": artifact.filename,
        "kind": artifact.kind,
        "digest": artifact.digest,
        "origin": artifact.origin,
    }
    if artifact.size is not None:
        record["size"] = artifact.size
    if artifact.members:
        record["in"] = list(artifact.members)
    if artifact.facts:
        record["facts"] = dict(artifact.facts)
    return record


def artifact_from_json(
    record: object, where: str, error: type[Any] = LockError, remedy: str = ""
) -> Artifact:
    """The artifact of a record.  Raises ``error`` naming ``where``."""
    fields = Fields(record, where, error, remedy)
    filename = fields.text("filename")
    if not is_safe_filename(filename):
        raise fields.wrong(f"{filename!r} is not a plain file name")
    return Artifact(
        kind=fields.text("kind"),
        name=fields.text("name"),
        version=fields.text("version"),
        filename=filename,
        digest=fields.digest("digest"),
        size=fields.count_or_none("size"),
        origin=fields.text("origin"),
        members=fields.texts("in") if isinstance(record, dict) and "in" in record else (),
        facts=fields.table("facts"),
    )


def environment_to_json(environment: LockedEnvironment) -> dict[str, Any]:
    """A locked environment as the lock and an environment's config write it."""
    record: dict[str, Any] = {
        "name": environment.name,
        "target": environment.target,
        "kind": environment.kind,
        "roots": list(environment.roots),
    }
    if environment.check is not None:
        record["check"] = environment.check
    if environment.settings:
        record["settings"] = dict(environment.settings)
    return record


def environment_from_json(record: object, where: str, error: type[Any] = LockError) -> LockedEnvironment:
    """The environment of a record.  Raises ``error`` naming ``where``."""
    fields = Fields(record, where, error)
    return LockedEnvironment(
        name=fields.text("name"),
        target=fields.text("target"),
        kind=fields.text("kind"),
        roots=fields.texts("roots"),
        check=fields.text_or_none("check"),
        settings=fields.table("settings"),
    )


def target_from_json(name: str, record: object, where: str, error: type[Any] = LockError) -> Target:
    """The target of a record.  Raises ``error`` naming ``where``."""
    fields = Fields(record, where, error)
    try:
        return Target(
            name=name,
            platform=fields.text("platform"),
            python=fields.text("python"),
            glibc=fields.text_or_none("glibc"),
            macos=fields.text_or_none("macos"),
            cuda=fields.text_or_none("cuda"),
            kernel=fields.text_or_none("kernel"),
            archspec=fields.text_or_none("archspec"),
        )
    except ValueError as problem:
        raise fields.wrong(str(problem)) from problem


def write(lock: Lock) -> bytes:
    """The bytes of a lock: equal locks, equal bytes."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))

    def block(lines: list[str], brackets: str) -> str:
        return brackets[0] + "\n  " + ",\n  ".join(lines) + "\n " + brackets[1] if lines else brackets

    targets = [f"{line(t.name)}: {line(t.to_json())}" for t in sorted(lock.targets, key=lambda t: t.name)]
    environments = [line(environment_to_json(e)) for e in sorted(lock.environments, key=lambda e: e.ref)]
    artifacts = [line(artifact_to_json(a)) for a in lock.artifacts]
    return (
        "{\n"
        f' "haversack-lock": {line(VERSION)},\n'
        f' "site": {line(lock.site)},\n'
        f' "declaration": {line(lock.declaration)},\n'
        f' "targets": {block(targets, "{}")},\n'
        f' "environments": {block(environments, "[]")},\n'
        f' "artifacts": {block(artifacts, "[]")}\n'
        "}\n"
    ).encode()


def read(data: bytes, where: str = FILENAME) -> tuple[Lock, str | None]:
    """The lock in some bytes, and a warning about a newer minor format.

    Raises ``LockError`` naming the place, or ``FormatError`` for a newer major version.
    """
    fields = Fields(parse(data, where, LockError), where, LockError, _REMEDY)
    warning = check_version(fields.text("haversack-lock"), VERSION, where, LockError)
    targets = tuple(
        target_from_json(name, record, f"{where}: targets.{name}")
        for name, record in fields.table("targets").items()
    )
    environments = tuple(
        environment_from_json(record, f"{where}: environments[{n}]")
        for n, record in enumerate(fields.items("environments"))
    )
    artifacts = tuple(
        artifact_from_json(record, f"{where}: artifacts[{n}]", LockError, _REMEDY)
        for n, record in enumerate(fields.items("artifacts"))
    )
    lock = Lock(fields.text("site"), fields.digest("declaration"), targets, environments, artifacts)
    _check(lock, where)
    return lock, warning


def _check(lock: Lock, where: str) -> None:
    """What one record may not say about another."""
    names = {target.name for target in lock.targets}
    refs = {environment.ref for environment in lock.environments}
    for environment in lock.environments:
        if environment.target not in names:
            raise LockError(
                f"environment {environment.ref} has no target of that name", where=where, remedy=_REMEDY
            )
    for artifact in lock.artifacts:
        for ref in artifact.members:
            if ref not in refs:
                raise LockError(
                    f"{artifact.filename} is in {ref}, which is no environment", where=where, remedy=_REMEDY
                )
