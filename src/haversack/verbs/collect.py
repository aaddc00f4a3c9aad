"""Collect: every file of a lock into the store of the connected side, fetched once and read once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from haversack.errors import FetchError, HaversackError, IntegrityError, LockError, NotFoundError, SpaceError
from haversack.formats.canonical import canonical
from haversack.kinds import inspector
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding, raise_blocking
from haversack.model.lock import Lock
from haversack.ports import Outside, Seal
from haversack.verbs.lock import own_wheel

_AT_ONCE = 8
_FACTS = "facts.json"
_Read: TypeAlias = tuple[Mapping[str, Any], list[Finding]]
"""The facts of an artifact, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What packing will cost, before it starts.

    ``fetch`` are the files to fetch and ``bytes`` what they weigh, ``held`` counts those that are here
    already, ``travel`` are the bytes that will cross (metadata aside), ``free`` those free in the store.
    ``unknown`` counts the files whose size neither the lock nor the host tells; they are in no sum.
    """

    fetch: tuple[Artifact, ...]
    bytes: int
    unknown: int
    held: int
    travel: int
    free: int


def plan(lock: Lock, out: Outside, base: Collection[Digest] = ()) -> Plan:
    """Work out what is to be fetched and what will cross; hosts are asked for sizes that no index gave."""
    wanted = {artifact.digest: artifact for artifact in lock.artifacts}
    missing = [artifact for digest, artifact in wanted.items() if out.store.size(digest) is None]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sizes = list(pool.map(lambda artifact: _size(artifact, out), missing))
    coming = {
        artifact.digest: size for artifact, size in zip(missing, sizes, strict=True) if size is not None
    }
    return Plan(
        fetch=tuple(missing),
        bytes=sum(coming.values()),
        unknown=len(missing) - len(coming),
        held=len(wanted) - len(missing),
        travel=sum(
            coming.get(digest, out.store.size(digest) or 0) for digest in wanted if digest not in base
        ),
        free=out.store.free(),
    )


def _size(artifact: Artifact, out: Outside) -> int | None:
    if artifact.size is not None or "://" not in artifact.origin:
        return artifact.size
    return out.fetch.size(artifact.origin)


def collect(
    lock: Lock, root: Path, planned: Plan, out: Outside
) -> dict[Digest, tuple[int, Mapping[str, Any]]]:
    """Fetch what is missing and read what is new; sizes and facts of every artifact by its digest.

    Files that arrived are kept when others fail, so that a second call fetches only the rest.  Raises the
    error of the worst finding, with all of them.
    """
    if planned.bytes > planned.free:
        raise SpaceError(
            f"{planned.bytes} bytes are to be fetched and {planned.free} are free",
            where=str(out.store),
            remedy="free some space",
        )
    partial = out.cache / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    findings: list[Finding] = []
    reading: dict[str, Future[_Read]] = {}
    stopped = threading.Event()

    def count(size: int) -> None:
        # Threads cannot be interrupted: without this a Ctrl-C would wait for the largest download.
        if stopped.is_set():
            raise FetchError("interrupted")
        advance(size)

    def one(artifact: Artifact) -> None:
        try:
            _bring(artifact, root, partial, out, count)
        except (FetchError, SpaceError, LockError, NotFoundError) as problem:
            if isinstance(problem, SpaceError):
                raise
            findings.append(Finding("fetch-failed", artifact.filename, str(problem), problem.remedy))
        except HaversackError as problem:
            findings.append(
                Finding(
                    "blob-damaged",
                    artifact.filename,
                    str(problem),
                    problem.remedy or "lock again, or ask who changed the file",
                )
            )
        else:
            # While others are still on their way: the network and the cores are two things.
            reading[_key(artifact)] = readers.submit(_look, artifact, out)

    # Inflating is work for the cores: more threads than those only wait for each other.
    with ThreadPoolExecutor(os.cpu_count()) as readers:
        with out.progress("collecting", planned.bytes) as advance, ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                # The largest first: the last to arrive should be small.
                list(pool.map(one, sorted(planned.fetch, key=lambda a: -(a.size or 0))))
            except BaseException:
                stopped.set()
                readers.shutdown(cancel_futures=True)
                raise
        _keep(planned.fetch, partial, out)
        raise_blocking(
            findings,
            f"{len(findings)} of {len(planned.fetch)} files could not be collected; the others are kept",
            remedy="mend what the findings name and run the same command again",
        )
        facts, wrong = _inspect(lock.artifacts, reading, readers, out)
    raise_blocking(wrong, "some files must not travel")
    return facts


def _bring(
    artifact: Artifact, root: Path, partial: Path, out: Outside, advance: Callable[[int], None]
) -> None:
    """One artifact from its origin into the store."""
    scheme, _, place = artifact.origin.partition(":")
    if scheme == "self":
        made = own_wheel(out)
        if made.digest != artifact.digest:
            raise LockError(
                "was made by another haversack", where=artifact.filename, remedy="run: haversack lock"
            )
        return
    if scheme in {"built", "prefix", "archive"}:
        raise LockError(
            "was built when it was locked, and is not in this store",
            where=artifact.filename,
            remedy="run: haversack lock",
        )
    if scheme == "path":
        source = root / place
        if not source.is_file():
            raise NotFoundError(
                "is not there any more", where=str(source), remedy="put it back, or lock again"
            )
        try:
            out.store.add(artifact.digest, _read(source, advance))
        except IntegrityError as problem:
            raise IntegrityError(
                "changed since it was locked", where=str(source), remedy="run: haversack lock"
            ) from problem
        return
    file = partial / hex_of(artifact.digest)
    try:
        out.fetch.get(artifact.origin, artifact.digest, file, advance, size=artifact.size)
    except IntegrityError as problem:
        if artifact.kind != "file":
            raise
        raise IntegrityError(
            f"the lock's hash is right, the host's file changed: {problem.message}",
            where=problem.where,
            remedy="find out who changed it; to take the new file, correct its `sha256`, or without one run: "
            "haversack lock --upgrade",
        ) from problem
    # Fetching has hashed every byte that lies there, what an earlier run left included.
    seal = Seal.of(file.lstat())
    out.store.add(artifact.digest, _read(file, lambda _: None), linkable=file, seal=seal)


def _keep(fetched: Iterable[Artifact], partial: Path, out: Outside) -> None:
    """Let go of downloads once the store has them for good: what it only staged, a kill or an error drops."""
    out.store.publish(out.store.index())
    for artifact in fetched:
        if out.store.size(artifact.digest) is not None:
            (partial / hex_of(artifact.digest)).unlink(missing_ok=True)


def _read(path: Path, advance: Callable[[int], None]) -> Iterable[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            advance(len(chunk))
            yield chunk


def _inspect(
    artifacts: Iterable[Artifact],
    reading: Mapping[str, Future[_Read]],
    readers: ThreadPoolExecutor,
    out: Outside,
) -> tuple[dict[Digest, tuple[int, Mapping[str, Any]]], list[Finding]]:
    """Sizes and facts of artifacts in the store, read from their bytes once and remembered.

    ``reading`` are those that are being read already, by their keys.
    """
    held = out.store.read_state(_FACTS)
    known: dict[str, Mapping[str, Any]] = json.loads(held) if held else {}
    wanted = {artifact.digest: artifact for artifact in artifacts}
    fresh = [artifact for artifact in wanted.values() if _key(artifact) not in known]
    findings: list[Finding] = []
    with out.progress("reading", sum(_held(a.digest, out) for a in fresh)) as advance:
        pending = {
            key: (artifact, reading.get(key) or readers.submit(_look, artifact, out))
            for artifact in fresh
            for key in [_key(artifact)]
        }
        for key, (artifact, future) in pending.items():
            facts, wrong = future.result()
            advance(_held(artifact.digest, out))
            findings += wrong
            if not any(finding.blocking for finding in wrong):
                known[key] = facts
    if fresh:
        out.store.write_state(_FACTS, canonical(known))
    return {d: (_held(d, out), known.get(_key(a), {})) for d, a in wanted.items()}, findings


def _look(artifact: Artifact, out: Outside) -> _Read:
    """What the bytes of an artifact in the store say."""
    kind = inspector(artifact.kind)
    if kind is None:
        return {}, []
    try:
        file = out.store.path(artifact.digest).open("rb")
    except FileNotFoundError:
        # Others are being added: it went to its place for good between the two steps.
        file = out.store.path(artifact.digest).open("rb")
    with file:
        return kind.inspect(artifact, file)


def _key(artifact: Artifact) -> str:
    """What facts are remembered by: the same bytes under another name, or with more asked of them, may be wrong."""
    return " ".join([artifact.digest, artifact.filename, *artifact.facts.get("requires", ())])


def _held(digest: Digest, out: Outside) -> int:
    """The size of a blob that must be there by now."""
    size = out.store.size(digest)
    if size is None:
        raise NotFoundError(f"the store does not hold {digest}", where=str(out.store))
    return size
