"""Conda packages, and wheels beside them, into a prefix that is made aside and at home elsewhere.

Rattler unpacks and links; of what it does not promise, this module keeps the promises: a package is hashed
before rattler sees it (it checks none that comes from a file), an unpacked package is hashed before files of
it are linked again, and no path of ours stands where conda looks for the origin of a package.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from haversack.conda import activation, checking, engine, scripts, settling
from haversack.conda.layout import layout_of, record, state_of
from haversack.errors import PrefixError, SpaceError, ToolError
from haversack.formats import uv
from haversack.formats.prefixes import META
from haversack.formats.repodata import record_of
from haversack.model.artifact import Artifact, hex_of
from haversack.model.finding import Finding
from haversack.model.snapshot import SnapshotEnvironment
from haversack.ports import Inside
from haversack.wheels import install as wheels_install

check = checking.check


def install(
    environment: SnapshotEnvironment, prefix: Path, inside: Inside, *, home: Path, compile_bytecode: bool
) -> None:
    """Make the environment at ``prefix``, which does not exist, to work at ``home``, where it is moved to.

    Every package is hashed before anything is written.  Nothing is run but the environment's own Python,
    asked by uv where wheels go.  ``compile_bytecode`` compiles what ``noarch: python`` packages and wheels
    brought, where this machine can run that Python; without it Python does so as it goes, as with uv.
    Raises ``PrefixError`` where ``home`` is longer than a package has room for, ``IntegrityError`` naming all
    packages that are not what they should be, ``ToolError`` with the words of rattler or uv.
    """
    packages = [artifact for artifact in environment.artifacts if artifact.kind == "conda"]
    wheels = [artifact for artifact in environment.artifacts if artifact.kind == "wheel"]
    layout = layout_of(packages, environment.target)
    # Uv and rattler write the path that they are given into files; a link on the way there may lead elsewhere.
    prefix = prefix.parent.resolve() / prefix.name
    check_room(packages, home)
    wheels_install.check_blobs(inside.store, [package.digest for package in packages])
    with ThreadPoolExecutor(wheels_install.BLOBS_AT_ONCE) as pool:
        records = list(pool.map(lambda package: _at_hand(package, inside), packages))

    def make() -> None:
        with inside.progress("linking", 0, ""):
            _link(records, prefix, home, environment.target.subdir, inside.cache)

    def add(lock: Path, copy: bool) -> list[str]:
        return uv.add_argv(lock, prefix / layout.python, copy=copy)

    wheels_install.fill(wheels, prefix, inside, make, add)
    _tell_origins(packages, records, prefix)
    if wheels and layout.site is not None:
        scripts.lead_home(prefix / layout.site, [wheel.name for wheel in wheels], prefix, home)
    variables = environment.locked.settings.get("variables", {})
    if variables:
        (prefix / META / "state").write_bytes(state_of(variables))
    activation.write(prefix, layout, home, variables)
    if compile_bytecode and layout.site is not None:
        _compile(environment, prefix, inside, home)


def settle(environment: SnapshotEnvironment, prefix: Path, inside: Inside) -> None:
    """Run the link scripts that the declaration allows; see :func:`haversack.conda.settling.run_scripts`."""
    settling.run_scripts(environment, layout_of(environment.artifacts, environment.target), prefix, inside)


def check_room(packages: Sequence[Artifact], home: Path) -> None:
    """Hold the length of ``home`` against the room that binaries have for it.

    A linker left as many bytes as the prefix that the package was built for has, and no more can be
    written there.  Raises ``PrefixError`` with a finding for each package that has too few.
    """
    long = len(os.fsencode(str(home)))
    findings = [
        Finding(
            "prefix-long",
            package.filename,
            f"has room for a prefix of {room} bytes, and {home} has {long}",
            "install to a shorter path",
        )
        for package in packages
        if isinstance(room := package.facts.get("placeholder"), int) and room < long
    ]
    if findings:
        raise PrefixError(
            f"is longer than {len(findings)} packages have room for",
            where=str(home),
            remedy="install to a shorter path",
            findings=findings,
        )


def _at_hand(package: Artifact, inside: Inside) -> dict[str, Any]:
    """The record of a package with the address of its blob, under the name by which rattler knows formats."""
    place = inside.cache / "conda" / hex_of(package.digest) / package.filename
    wheels_install.link(inside.store.path(package.digest), place)
    return {**record_of(package), "url": place.absolute().as_uri()}


def _link(records: Sequence[dict[str, Any]], prefix: Path, home: Path, subdir: str, cache: Path) -> None:
    """Have rattler unpack what was not unpacked before, and link everything into ``prefix``."""
    from rattler import Client, Subdir
    from rattler.exceptions import InstallerError
    from rattler.install import install as link
    from rattler.package_cache import PackageCache, PackageCacheLayer, ValidationMode

    layer = PackageCacheLayer((cache / "conda" / "pkgs").absolute())
    work = link(
        engine.to_rattler(records),
        target_prefix=prefix,
        # Files are hard links into the cache: one edited in an environment is edited there, and only hashing
        # them all sees it.  Rattler then unpacks the package anew, aside from what other environments hold.
        package_cache=PackageCache.from_layers([layer.with_validation_mode(ValidationMode.full())]),
        alternative_target_prefix=home,
        platform=Subdir(subdir),
        execute_link_scripts=False,
        show_progress=False,
        # One of its own reads the machine's logins; this one has none, and every address is a file's.
        client=Client(),
    )
    (prefix / META).mkdir(parents=True)
    try:
        with engine.guarded("linking the packages"):
            engine.run(work)
    except (InstallerError, OSError) as problem:
        said = ": ".join(line.removeprefix("Caused by: ") for line in str(problem).splitlines() if line)
        if uv.is_full(said) or (
            isinstance(problem, OSError) and problem.errno in {errno.ENOSPC, errno.EDQUOT}
        ):
            remedy = "free some space, or ask for a larger quota, and run the same command again"
            raise SpaceError(f"no room left while linking the packages: {said}", remedy=remedy) from problem
        raise ToolError(f"linking the packages failed: {said}", where="rattler") from problem
    # Conda knows an environment by it, and rattler writes none where there is no package.
    (prefix / META / "history").touch()


def _tell_origins(packages: Sequence[Artifact], records: Sequence[dict[str, Any]], prefix: Path) -> None:
    """Say in ``conda-meta/`` where packages come from, not where they lay when they were linked.

    Bytes are replaced rather than JSON read: a large environment has megabytes of it.
    """
    for package, told in zip(packages, records, strict=True):
        path = prefix / META / f"{package.name}-{package.version}-{record(package)['build']}.json"
        origin = package.origin
        if "://" not in origin:
            origin = f"{told['channel']}/{told['subdir']}/{package.filename}"
        old, new = (json.dumps(url).encode() for url in (told["url"], origin))
        path.write_bytes(path.read_bytes().replace(old, new))


def _compile(environment: SnapshotEnvironment, prefix: Path, inside: Inside, home: Path) -> None:
    """Compile the modules of packages that bring no bytecode, with the Python of the environment."""
    if environment.target.platform != inside.machine.platform:
        return
    layout = layout_of(environment.artifacts, environment.target)
    assert layout.site is not None
    with tempfile.TemporaryDirectory(prefix="haversack-compile-") as folder:
        names = Path(folder) / "names"
        names.write_text("".join(f"{path}\n" for path in sorted((prefix / layout.site).rglob("*.py"))))
        argv: list[str | Path] = [prefix / layout.python, "-I", "-m", "compileall", "-q", "-j", "0"]
        # What does not compile, such as a template of another Python, does no harm before it is imported.
        inside.run([*argv, "-s", prefix, "-p", home, "-i", names])
