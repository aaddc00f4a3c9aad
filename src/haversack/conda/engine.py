"""py-rattler behind one door: records there and back, its event loop, its panics.

Its interface moves between minor versions, it runs everything on an event loop, and a panic in it is a
``BaseException`` that no ``except Exception`` sees.  Nothing here dials.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rattler import (
    BuildString,
    Channel,
    ChannelPriority,
    GenericVirtualPackage,
    MatchSpec,
    PackageFormatSelection,
    PackageName,
    RepoDataRecord,
    SparseRepoData,
    Version,
    solve_with_sparse_repodata,
)
from rattler.exceptions import SolverError

from haversack.errors import ResolutionError, ToolError
from haversack.model.target import VirtualPackage

_Result = TypeVar("_Result")

Record = Mapping[str, Any]
"""A repodata record as JSON, with ``fn``, ``url`` and ``channel`` beside what the channel says of it."""


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run rattler's asynchronous work to its end, in this thread."""
    return asyncio.run(_finished(work))


async def _finished(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Wait, where ``work`` fails, for what it still has under way: rattler prints a traceback of its own when
    it comes back with an answer and the loop is closed."""
    try:
        return await work
    except Exception:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        raise


@contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Turn a panic within rattler into ``ToolError``; ``doing`` names what it was at."""
    try:
        yield
    except BaseException as problem:
        if type(problem).__name__ != "PanicException":
            raise
        raise ToolError(f"{doing} made rattler panic: {problem}", where="rattler") from problem


def to_rattler(records: Iterable[Record]) -> list[RepoDataRecord]:
    """Records as rattler has them, with the ``url`` and ``channel`` of each kept.

    Rattler reads a record with all its fields only as part of a ``repodata.json``: one is written for each
    channel and subdir.  Raises ``ToolError`` for a record that it cannot read.
    """
    found: list[RepoDataRecord] = []
    with _opened(records) as opened:
        for data, members in opened:
            urls = {record["fn"]: record["url"] for record in members}
            with guarded(f"reading records of {members[0]['channel']}"):
                for made in data.load_all_records(PackageFormatSelection.BOTH):
                    made.url = urls[made.file_name]
                    found.append(made)
    return found


def from_rattler(record: RepoDataRecord) -> dict[str, Any]:
    """A record of rattler's as JSON."""
    found: dict[str, Any] = json.loads(record.to_json())
    return found


def solve(
    specs: Sequence[str],
    records: Iterable[Record],
    virtual_packages: Sequence[VirtualPackage],
    *,
    held: Sequence[Record] = (),
    strict: bool = False,
) -> tuple[dict[str, Any], ...]:
    """Solve from these records alone, by name.  Raises ``ResolutionError`` with the solver's reason.

    Channels come in the order in which the records name them first; with ``strict`` the first that has a
    package hides the others.
    """
    with _opened(records) as opened:
        work = solve_with_sparse_repodata(
            [match(spec) for spec in specs],
            [data for data, _ in opened],
            locked_packages=to_rattler(held),
            virtual_packages=virtual(virtual_packages),
            channel_priority=ChannelPriority.Strict if strict else ChannelPriority.Disabled,
            package_format_selection=PackageFormatSelection.BOTH,
        )
        try:
            with guarded("the solver"):
                found = run(work)
        except SolverError as problem:
            raise ResolutionError(str(problem).strip()) from problem
    return tuple(sorted((from_rattler(record) for record in found), key=lambda r: (r["name"], r["fn"])))


def virtual(packages: Sequence[VirtualPackage]) -> list[GenericVirtualPackage]:
    """Virtual packages as rattler has them."""
    return [
        GenericVirtualPackage(PackageName(p.name), Version(p.version), BuildString(p.build)) for p in packages
    ]


def match(spec: str) -> MatchSpec:
    """A match specification.  Raises ``ResolutionError`` naming it, with rattler's reason."""
    from rattler.exceptions import InvalidMatchSpecError

    try:
        with guarded(f"reading {spec!r}"):
            return MatchSpec(spec)
    except InvalidMatchSpecError as problem:
        reason = str(problem).partition("\n")[0]
        raise ResolutionError(f"{spec!r} is no match specification: {reason}") from problem


@contextmanager
def _opened(records: Iterable[Record]) -> Iterator[list[tuple[SparseRepoData, list[Record]]]]:
    """Records as repodata that rattler has open, one for each channel and subdir, in the order of the records."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["channel"], record["subdir"]), []).append(record)
    opened: list[tuple[SparseRepoData, list[Record]]] = []
    with tempfile.TemporaryDirectory(prefix="haversack-records-") as folder:
        try:
            for number, ((channel, subdir), members) in enumerate(groups.items()):
                path = Path(folder) / f"{number}.json"
                path.write_bytes(_repodata(subdir, members))
                opened.append((_open(channel, subdir, path), members))
            yield opened
        finally:
            for data, _ in opened:
                data.close()


def _repodata(subdir: str, records: Iterable[Record]) -> bytes:
    tables: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for record in records:
        kept = {key: value for key, value in record.items() if key not in {"fn", "url", "channel"}}
        tables["packages.conda" if record["fn"].endswith(".conda") else "packages"][record["fn"]] = kept
    return json.dumps({"info": {"subdir": subdir}, **tables}).encode()


def _open(channel: str, subdir: str, path: Path) -> SparseRepoData:
    try:
        with guarded(f"reading records of {channel}"):
            return SparseRepoData(Channel(channel), subdir, path)
    except (OSError, ValueError) as problem:
        raise ToolError(f"records of {channel} cannot be read: {problem}", where="rattler") from problem
