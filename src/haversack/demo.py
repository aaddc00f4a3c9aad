"""``haversack demo``: the main job from end to end, on real packages, the inside with no network."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haversack.console import Console, human_size
from haversack.errors import ToolError
from haversack.model.target import Target
from haversack.ports import cage
from haversack.ports.machine import probe
from haversack.ports.run import Programs

PACKAGES = ("numpy", "pandas", "scikit-learn")
_IMPORT = "import numpy, pandas, sklearn; print('numpy', numpy.__version__, 'pandas', pandas.__version__, 'scikit-learn', sklearn.__version__)"


def declaration(here: Target, foreign: Target) -> str:
    """The demo's ``haversack.toml``: one environment for this machine and for one that is quite another."""
    lines = ["[site]", 'name = "demo"', ""]
    for target in (here, foreign):
        lines += [
            f"[target.{target.name}]",
            *(f'{key} = "{value}"' for key, value in target.to_json().items()),
            "",
        ]
    lines += ["[env.analysis]", 'kind = "pip"', 'requirements = ["requirements.txt"]']
    lines += [f'targets = ["{here.name}", "{foreign.name}"]', ""]
    return "\n".join(lines)


def demo(keep: Path | None, console: Console) -> None:
    """Lock, pack, and then, caged, verify, receive, install and import; say what crossed and how long it took.

    Raises ``ToolError`` when a step fails or the network cannot be taken away, so that success means what
    it says.
    """
    reason = Programs().cage()
    if reason:
        raise ToolError(
            f"the demo needs to take the network away: {reason}",
            remedy="run it as root, or allow user namespaces",
        )
    with _folder(keep) as folder:
        here = probe("this-machine")
        foreign = Target.from_name("windows-amd64-py312", name="foreign")
        if here.platform.startswith("windows"):
            foreign = Target.from_name("linux-x86_64-glibc2.28-py311", name="foreign")
        (folder / "requirements.txt").write_text("".join(f"{package}\n" for package in PACKAGES))
        (folder / "haversack.toml").write_text(declaration(here, foreign))
        console.lines([f"haversack demo, in {folder}", "", "OUTSIDE, with the network:"])
        steps: dict[str, Any] = {}
        outside = ["--store", str(folder / "store-outside")]
        steps["lock"] = _step(
            console,
            folder,
            [*outside, "lock"],
            lambda r: f"{r['artifacts']} files for {', '.join(r['environments'])}",
        )
        steps["pack"] = _step(
            console,
            folder,
            [*outside, "pack", "-o", "bundle"],
            lambda r: (
                f"{r['files']} files, {human_size(r['bytes'])}; rehearsed "
                + ", ".join(f"{x['ref']}: {x['result']}" for x in r["rehearsals"])
            ),
        )
        console.lines(
            [
                "",
                "INSIDE, in a network namespace with no interface (a dial out was tried and is unreachable):",
            ]
        )
        inside = ["--store", str(folder / "store-inside")]
        steps["verify"] = _step(
            console,
            folder,
            [*inside, "verify", "bundle"],
            lambda r: f"{r['files']} files are what they should be",
            caged=True,
        )
        steps["receive"] = _step(
            console,
            folder,
            [*inside, "receive", "bundle"],
            lambda r: f"snapshot {r['name']} is current",
            caged=True,
        )
        steps["install"] = _step(
            console,
            folder,
            [*inside, "install", "analysis", "--to", "env"],
            lambda r: f"{r['artifacts']} wheels to {r['prefix']}",
            caged=True,
        )
        steps["import"] = _import(console, folder)
        crossed = steps["pack"]["bytes"]
        console.report(
            {"folder": str(folder) if keep else None, "bytes": crossed, "steps": steps},
            [
                "",
                f"{human_size(crossed)} crossed in {len(steps['pack']['volumes'])} volume(s); bundle {steps['pack']['id']}",
            ],
        )


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="haversack-demo-") as folder:
        yield Path(folder)


def _step(console: Console, folder: Path, words: list[str], tell: Any, *, caged: bool = False) -> Any:
    """Run one command of haversack as a user would, and say what it did and how long it took."""
    argv = [sys.executable, "-m", "haversack", "--json", *words]
    told = [word for word in words if word != "--store" and "/store-" not in word]
    out, seconds = _run(argv, folder, f"haversack {' '.join(told)}", caged=caged)
    result = json.loads(out)
    console.lines([f"  $ haversack {' '.join(told):<34} {seconds:6.1f} s   {tell(result)}"])
    result["seconds"] = round(seconds, 2)
    return result


def _import(console: Console, folder: Path) -> Any:
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    out, seconds = _run([str(python), "-I", "-c", _IMPORT], folder, "import", caged=True)
    console.lines([f"  $ env/bin/python -c 'import …'{'':<18} {seconds:6.1f} s   {out.strip()}"])
    return {"said": out.strip(), "seconds": round(seconds, 2)}


def _run(argv: list[str], folder: Path, name: str, *, caged: bool) -> tuple[str, float]:
    words = [sys.executable, "-I", "-S", cage.__file__, *argv] if caged else argv
    begin = time.monotonic()
    # Progress bars are the step's own, on our terminal.
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode:
        raise ToolError(f"exited with {done.returncode}: {done.stdout.strip()}", where=name)
    return done.stdout, time.monotonic() - begin
