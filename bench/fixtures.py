"""What is measured on: a real environment of a hundred wheels from PyPI, and bundles made up of noise."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.lab import Lab
from bench.measure import MIB, timed
from haversack.formats import lockfile
from haversack.formats.declaration import parse
from haversack.kinds import keys
from haversack.model.artifact import Artifact, hex_of
from haversack.model.lock import Lock, LockedEnvironment, merge_artifacts
from haversack.model.target import Target

WISHES = ("pandas", "scikit-learn", "matplotlib", "jupyterlab")
"""What the real environment asks for; a hundred and some wheels come of it."""
MOMENT = "2026-11-01"
"""Both sides resolve as of this day, so that next year's run measures the same wheels."""
ENVIRONMENT = "science"


@dataclass(frozen=True)
class Real:
    """The real environment, locked and packed.

    ``wheels`` is a flat folder of its files, the tool's included; ``pins`` a requirements file with hashes
    of what the environment alone needs.
    """

    site: Path
    store: Path
    bundle: Path
    wheels: Path
    pins: Path
    count: int


def declare(site: Path, targets: list[Target], index: str = "") -> None:
    """Write the declaration of the real environment for some targets; from ``index`` alone if one is given."""
    site.mkdir(parents=True, exist_ok=True)
    lines = ["[site]", 'name = "bench"']
    lines += [] if index else [f"exclude-newer = {MOMENT}"]
    lines += ["[index.local]", f'url = "{index}"', "default = true"] if index else []
    for target in targets:
        lines += [
            f"[target.{target.name}]",
            *(f'{key} = "{value}"' for key, value in target.to_json().items()),
        ]
    names = ", ".join(f'"{target.name}"' for target in targets)
    lines += [
        f"[env.{ENVIRONMENT}]",
        'kind = "pip"',
        'requirements = ["requirements.txt"]',
        f"targets = [{names}]",
    ]
    (site / "haversack.toml").write_text("\n".join(lines) + "\n")
    (site / "requirements.txt").write_text("\n".join(WISHES) + "\n")


@cache
def real(lab: Lab) -> Real:
    """Lock and pack the real environment; its wheels are fetched once and kept in the scratch folder."""
    site, store = lab.work / "site", lab.scratch / "store"
    declare(site, [lab.here])
    lab.haversack("lock", store=store, cwd=site)
    lab.haversack(
        "pack", "-o", lab.work / "bundle", "--no-rehearse", "--name", lab.label, store=store, cwd=site
    )
    lock, _ = lockfile.read((site / lockfile.FILENAME).read_bytes())
    wheels, pins = lab.work / "wheels", lab.work / "pins.txt"
    wheels.mkdir()
    lines = []
    for artifact in lock.artifacts:
        shutil.copyfile(store / "blobs" / "sha256" / hex_of(artifact.digest), wheels / artifact.filename)
        if any(ref.startswith(f"{ENVIRONMENT}/") for ref in artifact.members):
            lines.append(f"{artifact.name}=={artifact.version} --hash={artifact.digest}\n")
    pins.write_text("".join(lines))
    return Real(site, store, lab.work / "bundle", wheels, pins, len(lines))


@cache
def pip(lab: Lab) -> Path:
    """The pip of a fresh virtual environment."""
    place = lab.work / "pip"
    timed([sys.executable, "-m", "venv", place], env=lab.environ())
    return place / "bin" / "pip"


@dataclass(frozen=True)
class Noise:
    """A made-up site: where it is declared and locked, and the size in bytes of its wheels."""

    site: Path
    store: Path
    bundle: Path
    size: int
    files: int


def shares(size: int) -> list[int]:
    """How a bundle's bytes fall on its files: one of a quarter, eight of a sixteenth, a hundred small ones."""
    return [size // 4, *([size // 16] * 8), *([size // 400] * 100)]


@cache
def noise(lab: Lab, size: int) -> Noise:
    """A site whose wheels hold ``size`` random bytes in all, locked by hand since no index has them."""
    site = lab.work / f"noise-{size}"
    (site / "wheels").mkdir(parents=True)
    declare(site, [lab.here])
    declared = parse(site / "haversack.toml", keys())
    environment = LockedEnvironment(ENVIRONMENT, lab.here.name, "pip")
    artifacts = []
    for number, share in enumerate(shares(size)):
        path, digest = _noise_wheel(site / "wheels", f"noise{number}", share)
        artifacts.append(
            Artifact(
                *("wheel", f"noise{number}", "1.0", path.name, digest, path.stat().st_size),
                *(f"path:wheels/{path.name}", (environment.ref,)),
            )
        )
    lock = Lock("bench", declared.digest, (lab.here,), (environment,), merge_artifacts(artifacts))
    (site / lockfile.FILENAME).write_bytes(lockfile.write(lock))
    made = Noise(site, site / "store", site / "bundle", size, len(artifacts))
    lab.haversack("pack", "-o", made.bundle, "--no-rehearse", store=made.store, cwd=site)
    return made


def _noise_wheel(folder: Path, name: str, size: int) -> tuple[Path, str]:
    """A valid wheel whose one large member is ``size`` bytes of noise, stored as they are; and its digest."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    mebibyte = random.Random(name).randbytes(MIB)
    info = f"{name}-1.0.dist-info"
    members = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}/__init__.py": b"",
    }
    record = [_line(member, hashlib.sha256(data), len(data)) for member, data in members.items()]
    with zipfile.ZipFile(path, "w") as archive:
        state, left = hashlib.sha256(), size
        with archive.open(f"{name}/noise.bin", "w", force_zip64=True) as member:
            while left:
                # A counter, so that no two mebibytes are equal: a file system might share them.
                chunk = (left.to_bytes(8, "big") + mebibyte)[: min(left, MIB)]
                state.update(chunk)
                member.write(chunk)
                left -= len(chunk)
        record.append(_line(f"{name}/noise.bin", state, size))
        for title, data in members.items():
            archive.writestr(title, data)
        archive.writestr(f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]))
    with path.open("rb") as file:
        return path, "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _line(member: str, state: hashlib._Hash, size: int) -> str:
    """A line of RECORD."""
    digest = base64.urlsafe_b64encode(state.digest()).rstrip(b"=").decode()
    return f"{member},sha256={digest},{size}\n"
