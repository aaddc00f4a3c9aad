"""What stands on every volume for people and machines without haversack."""

from __future__ import annotations

from importlib import resources

from haversack.model.artifact import hex_of
from haversack.model.lock import TOOL
from haversack.model.snapshot import Snapshot, SnapshotEnvironment
from haversack.model.target import ANY

FOLDER = "environments"
# By the ending of the list that is needed: who installs, and how.
_WAYS = {
    "explicit.txt": (
        "conda",
        '    (cd wheels && conda create -p PREFIX --offline --file "../${table}explicit.txt")\n',
    ),
    "requirements.txt": (
        "pip",
        "    python3 -m pip install --no-index --find-links wheels \\\n"
        '        --require-hashes -r "${table}requirements.txt"\n',
    ),
}


def table_name(environment: SnapshotEnvironment, ending: str) -> str:
    """``environments/analysis.gpu-node.sha256``."""
    return f"{FOLDER}/{environment.locked.name}.{environment.target.name}.{ending}"


def tables(snapshot: Snapshot) -> dict[str, bytes]:
    """For each environment a list that ``sha256sum -c`` and a shell loop read, and one for ``pip`` or ``conda``.

    The first names every file of the environment with its digest, which is its blob's name; the others are
    a requirements file with hashes and an ``@EXPLICIT`` file for the folder of those files.
    """
    found: dict[str, bytes] = {}
    for environment in filter(_has_files, snapshot.environments):
        files = [f"{hex_of(a.digest)}  {a.filename}\n" for a in environment.artifacts]
        pins = [
            f"{a.name}=={a.version} --hash=sha256:{hex_of(a.digest)}\n"
            for a in environment.artifacts
            if a.kind == "wheel"
        ]
        found[table_name(environment, "sha256")] = "".join(files).encode()
        if pins or environment.locked.kind == "pip":
            found[table_name(environment, "requirements.txt")] = "".join(pins).encode()
        packages = [
            f"./{a.filename}#{a.facts['record']['md5']}\n"
            for a in environment.artifacts
            if a.kind == "conda" and "md5" in a.facts.get("record", {})
        ]
        if packages:
            found[table_name(environment, "explicit.txt")] = ("@EXPLICIT\n" + "".join(packages)).encode()
    return found


def _has_files(environment: SnapshotEnvironment) -> bool:
    """Whether there is something to list: a platform is settings alone."""
    return bool(environment.artifacts) or environment.target != ANY


def readme(site: str, name: str, volumes: int, snapshot: Snapshot, base: str | None) -> bytes:
    """``README.txt``."""
    example = next((e for e in snapshot.environments if e.locked.name != TOOL and _has_files(e)), None)
    environments = "".join(f"    {e.ref}\n" for e in snapshot.environments if e.locked.name != TOOL)
    text = resources.files("haversack").joinpath("data/README.txt").read_text(encoding="utf-8")
    kind = f"an increment: it needs snapshot {base} to be there already" if base else "complete in itself"
    table = table_name(example, "") if example else f"{FOLDER}/NAME.TARGET."
    # What to do with the files in the end; a folder, which is one tar, is for haversack to put somewhere.
    written = tables(snapshot)
    ways = [way for way in _WAYS if example is None or f"{table}{way}" in written]
    return (
        text.replace("@SITE@", site)
        .replace("@NAME@", name)
        .replace("@VOLUMES@", str(volumes))
        .replace("@KIND@", kind)
        .replace("@ENVIRONMENTS@", environments)
        .replace("@TABLE@", table)
        .replace("@INSTALLER@", f" with {_WAYS[ways[-1]][0]}" if ways else "")
        .replace("@INSTALL@", "".join(_WAYS[way][1] for way in ways))
        .encode()
    )


def bootstrap() -> bytes:
    """``bootstrap.sh``."""
    return resources.files("haversack").joinpath("data/bootstrap.sh").read_bytes()
