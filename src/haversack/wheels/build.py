"""A wheel from a source distribution, on the connected side, with everything it was made of on record.

Build dependencies are resolved for this machine, fetched by digest and installed into an environment of
their own; the build itself runs caged, so that what is recorded is all there was.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename

from haversack.errors import HaversackError
from haversack.formats import uv
from haversack.formats.canonical import canonical
from haversack.formats.pylock import Pick
from haversack.model.artifact import Artifact, digest_of, hex_of
from haversack.model.finding import Finding
from haversack.model.site import Index
from haversack.model.target import Target
from haversack.ports import Outside
from haversack.wheels import resolve
from haversack.wheels.install import install, python_of

# PEP 518: what a source tree without [build-system] needs.
_DEFAULT_REQUIRES = ["setuptools>=40.8.0"]
# The oldest time a zip can hold; backends that honour SOURCE_DATE_EPOCH then give equal bytes.
_EPOCH = "315532800"


@dataclass(frozen=True, slots=True)
class Order:
    """What to build: the source distribution, for which environment and target, from which indexes."""

    sdist: Pick
    ref: str
    target: Target
    root: Path
    python: Path
    indexes: tuple[Index, ...] = ()
    exclude_newer: str | None = None


def build(order: Order, out: Outside) -> tuple[Artifact | None, list[Finding]]:
    """The wheel of a source distribution, in the store, or why there is none.

    A wheel built before from the same source with the same interpreter is taken again, so that locking
    unchanged input gives equal bytes.
    """
    memo = f"builds/{hex_of(digest_of(canonical([order.sdist.digest, str(order.python)])))}.json"
    held = out.store.read_state(memo)
    if held is not None:
        record = json.loads(held)
        if out.store.size(record["digest"]) is not None:
            return _artifact(order, record, out)
    try:
        with tempfile.TemporaryDirectory(prefix="haversack-build-") as folder:
            made = _build(order, Path(folder), out)
            if isinstance(made, Finding):
                return None, [made]
            record, wheel = made
            out.store.add(str(record["digest"]), [wheel.read_bytes()])
    except HaversackError as problem:
        return None, [_failed(order, str(problem))]
    data = canonical(record)
    out.store.write_state(memo, data)
    # Read back, so that a lock made now and one made from the memo have their keys in one order.
    return _artifact(order, json.loads(data), out)


def _build(order: Order, folder: Path, out: Outside) -> tuple[dict[str, object], Path] | Finding:
    source = folder / order.sdist.filename
    if "://" in order.sdist.location:
        sdist = order.sdist
        out.fetch.get(sdist.location, sdist.digest, source, lambda _: None, size=sdist.size)
    else:
        source = Path(order.sdist.location)
        if digest_of(source.read_bytes()) != order.sdist.digest:
            return _failed(order, f"{source.name} is not the file that its digest names")
    requires = _build_requires(source)
    wish = folder / "requirements.txt"
    wish.write_text("".join(f"{line}\n" for line in requires))
    question = resolve.Question(
        f"the build of {order.sdist.name}",
        folder,
        (str(wish),),
        out.machine,
        order.indexes,
        order.exclude_newer,
    )
    picks, findings = resolve.resolve(question, out)
    tools, more = resolve.to_artifacts(picks, "build", order.root)
    for finding in findings + more:
        return finding
    for tool in tools:
        collect_one(tool, folder, out)
    place = folder / "env"
    install(tools, place, order.python, out)
    caged = not out.run.cage()
    # Not quiet: uv would keep to itself what the backend said.
    done = out.run(
        [
            *("uv", "build", "--wheel", "--no-build-isolation", "--offline", "--no-config"),
            *("--python", str(python_of(place).absolute()), "--out-dir", str(folder / "dist"), str(source)),
        ],
        env={"SOURCE_DATE_EPOCH": _EPOCH, "VIRTUAL_ENV": str(place), "UV_CACHE_DIR": str(folder / "cache")},
        caged=caged,
    )
    wheels = list((folder / "dist").glob("*.whl"))
    if done.code or len(wheels) != 1:
        return _failed(order, uv.redact(done.err.strip()[-2000:]) or "gave no wheel")
    with wheels[0].open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    built = {
        "sdist": {
            "origin": resolve.origin_of(order.sdist.location, order.root),
            "digest": order.sdist.digest,
        },
        "requires": [
            {"name": t.name, "version": t.version, "digest": t.digest}
            for t in sorted(tools, key=lambda t: t.name)
        ],
        "on": out.machine.to_json(),
        "caged": caged,
    }
    return {
        "filename": wheels[0].name,
        "digest": digest,
        "size": wheels[0].stat().st_size,
        "built": built,
    }, wheels[0]


def collect_one(artifact: Artifact, folder: Path, out: Outside) -> None:
    """Bring one artifact into the store, from its origin."""
    if out.store.size(artifact.digest) is None:
        part = folder / artifact.filename
        out.fetch.get(artifact.origin, artifact.digest, part, lambda _: None, size=artifact.size)
        out.store.add(artifact.digest, [part.read_bytes()])


def _artifact(order: Order, record: dict[str, object], out: Outside) -> tuple[Artifact | None, list[Finding]]:
    """The built wheel as an artifact, if it runs on the target."""
    filename = str(record["filename"])
    name, version, _, tags = parse_wheel_filename(filename)
    pure = any(tag.platform == "any" for tag in tags)
    right_python = pure or out.machine.python_minor == order.target.python_minor
    if not pure and not (out.machine.runs_on(order.target) and right_python):
        message = f"was built here ({out.machine.platform}, glibc {out.machine.glibc}, Python {out.machine.python_short}) and would not run on {order.target.name}"
        remedy = "lock on a machine like the target, or choose a version that has a wheel"
        return None, [Finding("build-foreign", f"{filename} in {order.ref}", message, remedy)]
    artifact = Artifact(
        kind="wheel",
        name=name,
        version=str(version),
        filename=filename,
        digest=str(record["digest"]),
        size=int(str(record["size"])),
        origin=f"built:{order.sdist.digest}",
        members=(order.ref,),
        facts={"built": record["built"]},
    )
    return artifact, []


def _build_requires(source: Path) -> list[str]:
    """``[build-system] requires`` of a source distribution, read without unpacking it."""
    text: bytes | None = None
    if source.name.endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.count("/") == 1 and name.endswith("/pyproject.toml")
            ]
            text = archive.read(names[0]) if names else None
    else:
        with tarfile.open(source) as tar:
            for member in tar:
                if (
                    member.isfile()
                    and member.name.count("/") == 1
                    and member.name.endswith("/pyproject.toml")
                ):
                    file = tar.extractfile(member)
                    text = file.read() if file else None
                    break
    if text is None:
        return _DEFAULT_REQUIRES
    system = tomllib.loads(text.decode()).get("build-system", {})
    return [str(line) for line in system.get("requires", _DEFAULT_REQUIRES)]


def _failed(order: Order, message: str) -> Finding:
    remedy = "install what the build needs on this machine, or choose a version that has a wheel"
    return Finding("build-failed", f"{order.sdist.filename} in {order.ref}", message, remedy)
