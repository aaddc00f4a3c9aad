"""Jupyter and JupyterHub: every installed environment as a kernel that people choose for a notebook.

Kernels are folders with a ``kernel.json`` (jupyter_client, "Kernel specs"); docs/platforms/jupyter.md.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haversack.conda.entering import Entered, entered
from haversack.errors import ToolError, UsageError
from haversack.formats.schema import Key, KindKeys
from haversack.hpc.installed import ABSOLUTE, ABSOLUTE_SAYS, Installed, look, note, root_of
from haversack.hpc.placed import compared
from haversack.hpc.reach import closed, environments, placed
from haversack.model.finding import Finding, unknown
from haversack.model.site import Environment, Site
from haversack.platforms import Order, Rendered, undeclared
from haversack.ports import Inside


class Jupyter:
    """Notebooks: every installed environment as a kernel of Jupyter and JupyterHub."""

    name = "jupyter"
    keys = KindKeys(
        "Jupyter or JupyterHub, with kernels for what is installed.",
        {
            "kernels": Key(
                "string",
                "Folder of the kernels inside: kernels below share/jupyter of where Jupyter runs, or below a folder of JUPYTER_PATH.",
                required=True,
                pattern=ABSOLUTE,
                expects=ABSOLUTE_SAYS,
            ),
            "envs": Key("strings", "Environments to offer as kernels; each needs ipykernel.", required=True),
            "prefixes": Key(
                "string",
                "Folder in which environments are installed as ENV/SNAPSHOT; without the key envs beside the folder of the kernels.",
                pattern=ABSOLUTE,
                expects=ABSOLUTE_SAYS,
            ),
        },
    )
    asks: Mapping[str, Key] = {}
    looks: Mapping[str, Key] = {}

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        return undeclared(settings["envs"], site, "platform.jupyter.envs")

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """See :class:`haversack.platforms.Platform`: what is declared is all that kernels need."""
        return ()

    def render(self, order: Order, inside: Inside) -> Rendered:
        """See :class:`haversack.platforms.Platform`: a dated kernel of each, and one that follows the current snapshot."""
        if order.command:
            raise UsageError("kernels take no command", remedy="leave it out, with what stands before it")
        files: dict[str, bytes] = {}
        found, findings = _look(order)
        findings += _alike(order, found)
        for one in found:
            try:
                does = entered(one.prefix, inside)
            except ToolError as problem:
                findings.append(note(problem.where, problem.message, problem.remedy))
                continue
            for kernel, shown in _kernels(order, one):
                files[f"{kernel}/kernel.json"] = _kernel(order, one, does, shown)
        return Rendered(files, tuple(findings))

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        folder = Path(order.settings["kernels"])
        remedy = f"haversack render jupyter -o {shlex.quote(str(folder))}"
        rendered = self.render(order, inside)
        findings = list(rendered.findings)
        if not any(finding.blocking for finding in findings):
            findings += compared(folder, rendered.files, self.name, remedy)
        findings += closed({**placed(folder, rendered.files), **environments(_look(order)[0])})
        for one in _look(order)[0]:
            if not _starts(one.prefix / "bin" / "python", inside):
                said = f"{one.name} of {one.version} has no ipykernel: its kernel dies when it starts"
                findings.append(note(str(one.prefix), said, "declare ipykernel in it, and lock again"))
        said = "is not asked whether it looks into this folder"
        return [*findings, unknown("Jupyter", said, "jupyter kernelspec list, where it runs")]


def _look(order: Order) -> tuple[list[Installed], list[Finding]]:
    settings = order.settings
    return look(root_of(settings, "kernels"), settings["envs"], order.name, order.names)


def _kernels(order: Order, one: Installed) -> list[tuple[str, str]]:
    """The kernels of an installed environment: the name of each, which Jupyter has in small letters, and what people see."""
    dated = (f"{one.name}-{one.version}".lower(), f"{one.name} ({one.version})")
    return [dated, (one.name.lower(), one.name)] if one.version == order.name else [dated]


def _alike(order: Order, found: Sequence[Installed]) -> list[Finding]:
    """Two kernels of one name: a notebook would run with the packages of the other one, and nobody would know."""
    of: dict[str, list[Installed]] = {}
    for one in found:
        for kernel, _ in _kernels(order, one):
            of.setdefault(kernel, []).append(one)
    return [
        note(
            kernel,
            f"would be the kernel of {' and of '.join(f'{one.name} of {one.version}' for one in ones)}",
            f"take away one of the two folders: {', '.join(str(one.folder) for one in ones)}",
            blocking=True,
        )
        for kernel, ones in of.items()
        if len(ones) > 1
    ]


def _starts(python: Path, inside: Inside) -> bool:
    try:
        return not inside.run([python, "-I", "-c", "import ipykernel"]).code
    except ToolError:
        return False


def _kernel(order: Order, one: Installed, does: Entered, shown: str) -> bytes:
    """A kernel.json; Jupyter puts what ``${NAME}`` is where it starts a kernel into ``env``."""
    # What steers the hub's own Python must not steer the kernel's; empty is as good as unset.
    env = {"PYTHONHOME": "", "PYTHONPATH": ""}
    env |= {name: value.replace("$", "$$") for name, value in does.variables.items()}
    for name, folder in does.paths:
        # Only PATH is sure to be set where the kernel starts; of others nothing would be put in, and ${…} stay.
        after = env.get(name, "${PATH}" if name == "PATH" else "")
        env[name] = f"{folder.replace('$', '$$')}:{after}".removesuffix(":")
    for name, folder in does.behind:
        before = env.get(name, "${PATH}" if name == "PATH" else "")
        env[name] = f"{before}:{folder.replace('$', '$$')}".removeprefix(":")
    python = str(one.prefix / "bin" / "python")
    told = {
        "metadata": {
            "origin": order.origin_for(one.version, one.marker.snapshot),
            "snapshot": one.marker.snapshot,
        },
        "display_name": shown,
        "language": "python",
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "env": env,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


PLATFORM = Jupyter()
