"""Wheels into an environment of their own, and the proof that they work there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from haversack.errors import IntegrityError, SpaceError, ToolError
from haversack.formats import pylock, uv
from haversack.model.artifact import Artifact, Digest, hex_of
from haversack.model.finding import Finding
from haversack.ports import Completed, Inside, Store
from haversack.wheels import cache
from haversack.wheels.drift import changed_since

_CHUNK = 1 << 20
_FULL = "free some space, or ask for a larger quota, and run the same command again"
BLOBS_AT_ONCE = 8
"""Blobs to ask a store for at once: it may be far away."""


def python_of(prefix: Path) -> Path:
    """The interpreter of an environment."""
    return prefix / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(
    artifacts: Sequence[Artifact],
    prefix: Path,
    python: Path,
    inside: Inside,
    *,
    compile_bytecode: bool = False,
) -> None:
    """Make an environment of these wheels at ``prefix``, which does not exist yet and may be moved afterwards.

    Every wheel is hashed: by uv where it unpacks one, by us where it was unpacked before.  Raises
    ``IntegrityError`` naming all wheels that are not what they should be, ``ToolError`` with uv's words when
    it fails.
    """
    wheels = [artifact for artifact in artifacts if artifact.kind == "wheel"]
    venv = uv.venv_argv(prefix, python)

    def make() -> None:
        _must(inside, venv, _env(inside), "making the environment")

    def sync(lock: Path, copy: bool) -> list[str]:
        return uv.sync_argv(lock, python_of(prefix), copy=copy, compile_bytecode=compile_bytecode)

    fill(wheels, prefix, inside, make, sync)


def fill(
    wheels: Sequence[Artifact],
    prefix: Path,
    inside: Inside,
    make: Callable[[], None],
    argv: Callable[[Path, bool], Sequence[str]],
) -> None:
    """Make an environment with ``make`` and put wheels into it with the uv command that ``argv`` gives.

    ``argv`` is given a path-only lock, and whether files have to be copied.  Where a file of uv's cache was
    edited, ``prefix`` is removed and ``make`` called again.  The cache is held meanwhile.  Raises as
    :func:`install`.
    """
    env = _env(inside)
    if not wheels:
        with cache.held(inside.cache, alone=False):
            make()
        return
    farm = inside.cache / "wheels"
    with ThreadPoolExecutor(BLOBS_AT_ONCE) as pool:
        blobs = list(pool.map(inside.store.path, [wheel.digest for wheel in wheels]))
    for wheel, blob in zip(wheels, blobs, strict=True):
        link(blob, farm / hex_of(wheel.digest) / wheel.filename)
    copy = not _links_between(inside.cache, prefix.parent)
    stamps = {wheel.name: farm / hex_of(wheel.digest) / ".unpacked" for wheel in wheels}
    check_blobs(inside.store, [wheel.digest for wheel in wheels if stamps[wheel.name].exists()])
    with tempfile.TemporaryDirectory(prefix="haversack-install-") as folder:
        lock = Path(folder) / "pylock.toml"
        lock.write_bytes(pylock.path_only(wheels, farm.as_posix()))

        def made() -> bool:
            """Make the environment; whether all that the cache had before is as it was unpacked."""
            unpacked = _unpacked(inside.cache, stamps, every=copy)
            make()
            try:
                _must(inside, argv(lock, copy), env, "installing")
            except ToolError:
                # Of a damaged wheel uv names only the first, in its own words.
                check_blobs(inside.store, [wheel.digest for wheel in wheels])
                raise
            if changed_since(prefix, unpacked):
                shutil.rmtree(prefix)
                return False
            for stamp in stamps.values():
                # Its date is that of the first look: a later one would cover up an edit in between.
                with contextlib.suppress(FileExistsError):
                    stamp.touch(exist_ok=False)
            return True

        with inside.progress("installing", 0, ""):
            with cache.held(inside.cache, alone=False):
                if made():
                    return
            # Somebody edited an installed file, and with it the cache: unpack everything anew once nobody
            # installs from there, unless another install that waited for that has done it.
            with cache.held(inside.cache, alone=True):
                if not made():
                    cache.drop_unpacked(inside.cache)
                    made()


def _env(inside: Inside) -> dict[str, str]:
    return {"UV_CACHE_DIR": str(inside.cache / "uv")}


def _unpacked(place: Path, stamps: Mapping[str, Path], *, every: bool) -> dict[str, int | None]:
    """When the wheel of each distribution was unpacked (ns since the epoch); ``None`` to hash it all.

    A wheel without a stamp can have been unpacked all the same, by an install that was killed: only in a
    new cache is there certainly none.
    """
    if not (place / "uv").exists():
        return {}
    return {
        name: None if every or not stamp.exists() else stamp.stat().st_mtime_ns
        for name, stamp in stamps.items()
    }


def damaged(digest: Digest, store: Store) -> Finding | None:
    """A finding if a blob is not what its name says: the store hashes what it gives out."""
    try:
        with store.open(digest) as file:
            while file.read(_CHUNK):
                """To the end, where the digest is compared."""
    except IntegrityError as problem:
        return Finding(
            "store-damaged",
            problem.where or digest,
            "is not what its name says",
            "receive a bundle that holds it again",
        )
    return None


def check_blobs(store: Store, digests: Iterable[Digest]) -> None:
    """Hash blobs on all cores.  Raises ``IntegrityError`` with a finding for each that is wrong."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [f for f in pool.map(lambda digest: damaged(digest, store), dict.fromkeys(digests)) if f]
    if findings:
        raise IntegrityError(f"{len(findings)} blobs of the store are damaged", findings=findings)


def link(blob: Path, name: Path) -> None:
    """Give a blob the name its consumer needs, by a link where the system has them.

    A symbolic link works for a reader who does not own the store; the name is made once and kept, since
    uv recognises an unpacked wheel by the path it came from.
    """
    if name.is_symlink() and name.readlink() == blob:
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    aside = name.with_name(f".{name.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(blob)
    except OSError:
        # Windows without the privilege, or a file system without links.
        shutil.copyfile(blob, aside)
    aside.replace(name)


def _links_between(cache: Path, folder: Path) -> bool:
    """Whether a file of the cache can be hard-linked into a folder."""
    cache.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=cache)
    os.close(descriptor)
    trial = folder / f".haversack-link-{os.getpid()}"
    try:
        os.link(name, trial)
    except OSError:
        return False
    else:
        trial.unlink()
        return True
    finally:
        Path(name).unlink()


def _must(inside: Inside, argv: Sequence[str], env: dict[str, str], doing: str) -> None:
    done = inside.run(argv, env=env)
    if done.code:
        said = uv.redact(done.err.strip() or done.out.strip())
        if uv.is_full(said):
            raise SpaceError(f"no room left while {doing}: {said}", remedy=_FULL)
        raise ToolError(f"{doing} failed: {said}", where="uv")


# One module after the other in one process, as a program would.  Each name is flushed before its import:
# a module that kills the process is the last one named.
_IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    print(end=f"\\0{name}\\0", file=sys.__stderr__, flush=True)
    try:
        importlib.import_module(name)
    except BaseException as problem:
        print(end=f"\\1{type(problem).__name__}: {problem}", file=sys.__stderr__, flush=True)
print(end="\\0\\0", file=sys.__stderr__, flush=True)
"""


def check(
    artifacts: Sequence[Artifact],
    prefix: Path,
    command: str | None,
    subject: str,
    inside: Inside,
    *,
    caged: bool,
) -> list[Finding]:
    """Prove an installed environment: pip check's rule, then its check command or an import of every module."""
    python = python_of(prefix).absolute()
    findings = []
    done = inside.run(uv.check_argv(python), caged=caged)
    if done.code:
        findings.append(
            failed(
                subject,
                "pip check: " + (done.err or done.out).strip(),
                "relax or add the requirement that it names",
            )
        )
    env = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(prefix),
    }
    if command is not None:
        return findings + check_command(["sh", "-c", command], env, subject, inside, caged=caged)
    return findings + check_imports(artifacts, python, env, subject, inside, caged=caged)


def check_command(
    argv: Sequence[str], env: Mapping[str, str], subject: str, inside: Inside, *, caged: bool
) -> list[Finding]:
    """Run the check of an environment in an empty folder; a finding with its words if it fails."""
    with tempfile.TemporaryDirectory(prefix="haversack-check-") as folder:
        done = inside.run(argv, env=env, cwd=Path(folder), caged=caged)
    if not done.code:
        return []
    said = (done.err + done.out).strip()[-2000:]
    return [failed(subject, f"check exited with {done.code}: {said}", "mend the environment or its check")]


def check_imports(
    artifacts: Sequence[Artifact],
    python: Path,
    env: Mapping[str, str],
    subject: str,
    inside: Inside,
    *,
    caged: bool,
) -> list[Finding]:
    """Import every module of some wheels; a finding for each that cannot be."""
    modules = sorted({module for a in artifacts for module in a.facts.get("modules", ())})
    # It refuses to be imported once distutils has been, and pip makes its import be that of the system.
    modules.sort(key=lambda module: module != "setuptools")
    if not modules:
        return []
    with tempfile.TemporaryDirectory(prefix="haversack-check-") as folder:
        done = inside.run([python, "-I", "-c", _IMPORT_ALL, *modules], env=env, cwd=Path(folder), caged=caged)
    remedy = "add what it needs, or give the environment a check of its own"
    return [failed(subject, text, remedy) for text in _failed_imports(done)]


def _failed_imports(done: Completed) -> list[str]:
    """What to say of each import that failed; what modules print while they are imported is no failure."""
    words = done.err.split("\0")[1:]
    told = list(zip(words[::2], words[1::2], strict=False))
    failed = {name: said.rpartition("\1")[2].strip() for name, said in told if "\1" in said}
    if not told:
        return [f"the imports did not start (exit code {done.code}): {done.err.strip()[-500:]}"]
    name, said = told[-1]
    if name:  # the end has none: this one ended the interpreter, with whichever exit code
        failed[name] = f"ended the interpreter (exit code {done.code}) {said.strip()}".strip()
    return [f"import of {name}: {said[:500]}" for name, said in failed.items()]


def failed(subject: str, message: str, remedy: str) -> Finding:
    """A finding that an environment does not work."""
    return Finding("rehearsal-failed", subject, message, remedy)
