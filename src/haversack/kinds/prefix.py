"""``kind = "prefix"``: an environment that exists only as a folder, carried as it is."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from haversack.errors import DeclarationError, HaversackError, NotFoundError, PrefixError, SpaceError
from haversack.formats.schema import PATH, PATH_SAYS, Key, KindKeys
from haversack.kinds import Locked
from haversack.model.artifact import Artifact, Facts, hex_of
from haversack.model.finding import Finding
from haversack.model.lock import Lock, LockedEnvironment
from haversack.model.site import Environment, Site
from haversack.model.snapshot import SnapshotEnvironment
from haversack.model.target import Target
from haversack.ports import Inside, Outside, Store
from haversack.relocation import archive, condapack, drift, restore, scan

_PREFIX = "import os, sys; print(os.path.realpath(sys.prefix))"


class Prefix:
    """A conda environment, a virtual environment or any folder, packed where it stands and put where it is wanted."""

    name = "prefix"
    artifacts = ("prefix",)
    relocatable = False
    keys = KindKeys(
        "An environment that exists only as a folder on this machine.",
        {
            "path": Key(
                "place", "The folder of the environment, a conda or a virtual environment or any other."
            ),
            # Not a "file", which is read whole whenever the declaration is: these are large.
            "archive": Key(
                "string", "An archive that conda-pack made of it.", pattern=PATH, expects=PATH_SAYS
            ),
            "targets": Key("strings", "Targets to install on; without the key the machine that locks."),
        },
        one_of=("path", "archive"),
    )

    def lock(
        self, site: Site, environment: Environment, target: Target, held: Lock | None, out: Outside
    ) -> Locked:
        """See :class:`haversack.kinds.Kind`: the folder is read and packed into the store now, and never again."""
        ref = f"{environment.name}/{target.name}"
        locked = LockedEnvironment(environment.name, target.name, self.name, (), environment.check)
        settings = environment.settings
        with _aside(out.cache) as work:
            root = site.root / settings.get("path", "")
            known_as: tuple[str, ...] = ()
            if "archive" in settings:
                root = work / "opened"
                known_as = _opened(site.root / settings["archive"], root)
            with out.progress(f"reading {environment.name}", 0) as advance:
                scanned = scan.scan(root, advance, known_as=known_as)
            foreign = _foreign(ref, target, out)
            if any(finding.blocking for finding in (*scanned.findings, *foreign)):
                return Locked(locked, (), (*scanned.findings, *foreign))
            with out.progress(f"packing {environment.name}", scanned.size) as advance:
                place = work / "packed.tar"
                with place.open("xb", buffering=0) as file:
                    written = archive.write(scanned, file, advance)
                # The store shares the file itself where it can; it is for everybody to read then.
                place.chmod(0o444)
                out.store.add(written.digest, _chunks(place), linkable=place)
        artifact = Artifact(
            "prefix",
            environment.name,
            hex_of(written.digest)[:12],
            f"{environment.name}.tar",
            written.digest,
            written.size,
            f"prefix:{settings.get('path') or settings['archive']}",
            (ref,),
        )
        return Locked(locked, (artifact,), (*written.scan.findings, *foreign))

    def inspect(self, artifact: Artifact, file: BinaryIO) -> tuple[Facts, list[Finding]]:
        """See :class:`haversack.kinds.Kind`."""
        return archive.inspect(file)

    def prove(self, environment: SnapshotEnvironment) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: a folder is all that it needs."""
        if _packed(environment) is not None:
            return []
        message = f"the folder of {environment.locked.name} is not in the bundle"
        return [Finding("closure-missing", environment.ref, message, "run: haversack lock")]

    def borrows(self, environment: SnapshotEnvironment, inside: Inside) -> str | None:
        """See :class:`haversack.kinds.Kind`: a virtual environment borrows the Python that it was made with."""
        packed = _packed(environment)
        python: str | None = packed.facts.get("python") if packed else None
        return python

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
        """See :class:`haversack.kinds.Kind`.  Raises ``PrefixError`` for a home that does not fit into its files."""
        packed = _packed(environment)
        if packed is None:
            raise NotFoundError("has no folder in the snapshot", where=environment.ref)
        size = packed.facts.get("unpacked", 0)
        with inside.progress("installing", size) as advance, inside.store.open(packed.digest) as blob:
            told = restore.restore(blob, prefix, home.absolute(), python, advance)
        own = prefix / "bin" / "python"
        if compile_bytecode and own.exists():
            # Bytecode names its source: as it will be called, not as it is called now.
            argv: list[str | Path] = [
                own,
                "-m",
                "compileall",
                "-q",
                "-j",
                "0",
                "-s",
                prefix,
                "-p",
                home.absolute(),
                prefix / "lib",
            ]
            # What is not for this Python does not compile; nobody imports it.
            inside.run(argv, env={"PATH": _path(prefix)} if told.flavour == "conda" else None)

    def settle(self, environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
        """See :class:`haversack.kinds.Kind`; whatever scripts its packages had ran long ago."""

    def check(
        self, environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, caged: bool
    ) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: without a command, whether its Python starts and knows where it is."""
        env = {"PATH": _path(prefix), "VIRTUAL_ENV": str(prefix), "CONDA_PREFIX": str(prefix)}
        command = environment.locked.check
        python = prefix / "bin" / "python"
        with tempfile.TemporaryDirectory(prefix="haversack-check-") as folder:
            if command is not None:
                done = inside.run(["sh", "-c", command], env=env, cwd=Path(folder), caged=caged)
                said = f"check exited with {done.code}: {(done.err + done.out).strip()[-2000:]}"
                return [_failed(environment.ref, said)] if done.code else []
            if not python.exists():
                return []
            done = inside.run([python, "-I", "-B", "-c", _PREFIX], env=env, cwd=Path(folder), caged=caged)
        if done.code:
            return [_failed(environment.ref, f"its Python does not start: {done.err.strip()[-500:]}")]
        if done.out.strip() != os.path.realpath(prefix):
            return [_failed(environment.ref, f"its Python believes that it is in {done.out.strip()}")]
        return []

    def drift(self, environment: SnapshotEnvironment, prefix: Path, store: Store) -> list[Finding]:
        """See :class:`haversack.kinds.Kind`: every file is compared with the one in the store."""
        packed = _packed(environment)
        if packed is None or store.size(packed.digest) is None:
            message = "is not in the store any more: nothing tells what the environment should be"
            remedy = "receive a bundle that holds it"
            return [Finding("store-incomplete", environment.ref, message, remedy, blocking=False)]
        try:
            with store.open(packed.digest) as blob:
                return drift.drift(prefix, blob)
        except HaversackError as problem:
            remedy = problem.remedy or "receive a bundle that holds it again"
            return [*problem.findings, Finding("env-changed", environment.ref, str(problem), remedy)]


def _packed(environment: SnapshotEnvironment) -> Artifact | None:
    return next((artifact for artifact in environment.artifacts if artifact.kind == "prefix"), None)


def _foreign(ref: str, target: Target, out: Outside) -> list[Finding]:
    """A finding if a folder of this machine cannot be for the target."""
    if target.platform == out.machine.platform:
        return []
    message = f"stands on {out.machine.platform}, and the target is {target.platform}"
    return [Finding("prefix-unmovable", ref, message, "lock it on a machine like the target")]


@contextmanager
def _aside(cache: Path) -> Iterator[Path]:
    """A folder for what is packed; raises ``SpaceError`` where that has no room, ``PrefixError`` for other faults."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="prefix-", dir=cache) as work:
            yield Path(work)
    except BrokenPipeError:
        raise
    except OSError as problem:
        full = problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise (SpaceError if full else PrefixError)(
            "no room left while it was packed"
            if full
            else f"cannot be packed: {problem.strerror or problem}",
            where=str(cache) if full else str(problem.filename or cache),
            remedy="free some space and run the same command again" if full else "",
        ) from problem


def _opened(packed: Path, folder: Path) -> tuple[str, ...]:
    """An archive of conda-pack in a folder; the paths that its files call it by."""
    if not packed.is_file():
        raise DeclarationError("is not a file", where=str(packed), remedy="correct the path, or put it there")
    return condapack.open_packed(packed, folder)


def _chunks(place: Path) -> Iterator[bytes]:
    with place.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _path(prefix: Path) -> str:
    return f"{prefix / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _failed(subject: str, message: str) -> Finding:
    return Finding("rehearsal-failed", subject, message, "see whether it works where it was packed")


KIND = Prefix()
