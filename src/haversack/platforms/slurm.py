"""Slurm, with environment modules: modulefiles for what is installed, and job scripts that use it.

Environments lie at ``<prefixes>/<environment>/<snapshot>``, where ``haversack install`` put them; a module
is called by the last two parts of that path.  Rules of sbatch, sinfo and modulefiles: docs/platforms/slurm.md.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from haversack.conda.entering import activation, entered
from haversack.errors import PrefixError, ToolError, UsageError
from haversack.formats import modulefile, sbatch
from haversack.formats.schema import NAME, NAME_SAYS, Key, KindKeys
from haversack.hpc import cluster
from haversack.hpc.installed import ABSOLUTE, ABSOLUTE_SAYS, Installed, install, look, note, root_of
from haversack.hpc.placed import compared, left
from haversack.hpc.reach import closed, environments, placed
from haversack.model.finding import Finding, unknown
from haversack.model.site import Environment, Site
from haversack.platforms import Order, Rendered, undeclared
from haversack.ports import Inside


def _text(description: str, pattern: str, expects: str) -> Key:
    return Key("string", description, pattern=pattern, expects=expects)


_DIRECTIVES = {
    "account": "account", "array": "array", "cpus": "cpus-per-task", "gpus": "gpus", "mem": "mem",
    "partition": "partition", "time": "time",
}  # fmt: skip
# What says of modules beside it, or below, how they are called too and which version is the default.
_RC = (".modulerc", ".modulerc.lua")
# Modules of these names in other folders of MODULEPATH, one a line: name, tab, folder.
_AVAILABLE = """\
for init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do
    if ! type module > /dev/null 2>&1 && [ -r "$init" ]; then . "$init"; fi
done
type module > /dev/null 2>&1 || exit 3
own="$1"; shift
IFS=:
for folder in $MODULEPATH; do
    if [ "$folder" = "$own" ]; then continue; fi
    for name in "$@"; do
        if [ -e "$folder/$name" ] || [ -e "$folder/$name.lua" ]; then printf '%s\\t%s\\n' "$name" "$folder"; fi
    done
done
"""


class Slurm:
    """A cluster that Slurm schedules, whose people load environments as modules."""

    name = "slurm"
    keys = KindKeys(
        "A Slurm cluster with environment modules.",
        {
            "modules": Key(
                "string",
                "Folder of the modulefiles inside, which people `module use`.",
                required=True,
                pattern=ABSOLUTE,
                expects=ABSOLUTE_SAYS,
            ),
            "envs": Key("strings", "Environments to offer as modules.", required=True),
            "prefixes": _text(
                "Folder on a file system that every node has, in which environments are installed as ENV/SNAPSHOT; without the key envs beside the folder of the modulefiles.",
                ABSOLUTE,
                ABSOLUTE_SAYS,
            ),
            "partition": _text("Partition of job scripts that name none.", sbatch.NAMES, "a partition"),
            "account": _text("Account of job scripts that name none.", sbatch.NAMES, "an account"),
        },
    )
    asks: Mapping[str, Key] = {
        "env": Key("string", "Write a job script that runs a command in this environment."),
        "name": _text("Name of the job and of its file (default: the environment's).", NAME, NAME_SAYS),
        "time": _text("Time limit of the job.", sbatch.TIME, sbatch.TIME_SAYS),
        "mem": _text("Memory on each node.", sbatch.SIZE, sbatch.SIZE_SAYS),
        "cpus": _text("Processors for the task.", "[1-9][0-9]*", "a number"),
        "gpus": _text("GPUs, a number or TYPE:NUMBER.", r"(?:[A-Za-z0-9_.-]+:)?[1-9][0-9]*", "a number"),
        "array": _text("Run as an array of tasks.", sbatch.ARRAY, sbatch.ARRAY_SAYS),
        "partition": _text("Partition.", sbatch.NAMES, "a partition"),
        "account": _text("Account.", sbatch.NAMES, "an account"),
        "via": Key(
            "string",
            "How the job enters the environment (default: module).",
            choices=("module", "activate", "run", "install"),
        ),
        "broadcast": Key(
            "boolean", "Send the environment to the nodes' own disks as one file.", default=False
        ),
    }

    looks: Mapping[str, Key] = {}

    def validate(self, settings: Mapping[str, Any], site: Site) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        return undeclared(settings["envs"], site, "platform.slurm.envs")

    def needs(self, settings: Mapping[str, Any], site: Site) -> tuple[Environment, ...]:
        """See :class:`haversack.platforms.Platform`: what is declared is all that jobs need."""
        return ()

    def render(self, order: Order, inside: Inside) -> Rendered:
        """See :class:`haversack.platforms.Platform`: modulefiles, or with ``env`` one job script."""
        if "env" in order.asked:
            return _job(order, inside)
        if more := sorted(key for key, value in order.asked.items() if value) or order.command:
            raise UsageError(f"{more[0]} belongs to a job script", remedy="name its environment: --env NAME")
        return _modules(order, inside)

    def preflight(self, order: Order, inside: Inside) -> list[Finding]:
        """See :class:`haversack.platforms.Platform`."""
        rendered = _modules(order, inside)
        blocked = any(finding.blocking for finding in rendered.findings)
        modules = [] if blocked else _of_modules(order, rendered.files, inside)
        tops = {**placed(Path(order.settings["modules"]), rendered.files), **environments(_look(order)[0])}
        return [*rendered.findings, *modules, *closed(tops), *_of_pythons(order), *cluster.ready(inside)]


def _root(settings: Mapping[str, Any]) -> Path:
    return root_of(settings, "modules")


def _look(order: Order) -> tuple[list[Installed], list[Finding]]:
    """Every environment that is installed where a module can name it, and what is wrong there."""
    return look(_root(order.settings), order.settings["envs"], order.name, order.names)


def _modules(order: Order, inside: Inside) -> Rendered:
    """A modulefile for every installed environment; the snapshot that is rendered is the default version."""
    files: dict[str, bytes] = {}
    found, findings = _look(order)
    findings += [*_taken(order), *_steered(order, found)]
    for one in found:
        try:
            does = entered(one.prefix, inside)
        except ToolError as problem:
            findings.append(note(problem.where, problem.message, problem.remedy))
            continue
        broken = [key for key, value in does.variables.items() if "\n" in value or "\r" in value]
        findings += [
            note(str(one.prefix), f"{key} holds a line break, which no module can set", "use --via activate")
            for key in broken
        ]
        files[f"{one.name}/{one.version}"] = modulefile.module(
            order.origin_for(one.version, one.marker.snapshot),
            f"{one.name} of snapshot {one.version}, {one.marker.snapshot}",
            conflicts=order.settings["envs"],
            paths=does.paths,
            behind=does.behind,
            variables={key: value for key, value in does.variables.items() if key not in broken},
        )
        if one.version == order.name:
            files[f"{one.name}/.version"] = modulefile.default(order.origin, one.version)
    return Rendered(files, tuple(findings))


def _taken(order: Order) -> list[Finding]:
    """Modules without versions that bear the name of one of ours, in the folder where ours should be.

    A name with ``.lua`` behind it is read by Lmod alone, which takes it or ours, as other files there have it.
    """
    folder, remedy = (
        order.folder or Path(order.settings["modules"]),
        "move it away, or rename the environment",
    )
    return [
        note(str(flat), f"is a module {name} already, without versions", remedy, blocking=not flat.suffix)
        for name in order.settings["envs"]
        for flat in (folder / name, folder / f"{name}.lua")
        if flat.is_file()
    ]


def _steered(order: Order, found: Sequence[Installed]) -> list[Finding]:
    """Files of others that decide before ours what a name means, where ours should be.

    Lmod takes a version in Lua before one in Tcl, and of default versions a file or link ``default`` first, then
    ``.modulerc.lua``, ``.modulerc``, and ``.version`` last; an alias in the folder of all modules comes before
    every version.  Environment Modules reads ``.modulerc`` too, which may hide a version or name it otherwise.
    """
    folder = order.folder or Path(order.settings["modules"])
    findings = []
    for one in found:
        if (lua := folder / one.name / f"{one.version}.lua").exists():
            said = f"is a module {one.name}/{one.version} already, and Lmod loads this one"
            findings.append(note(str(lua), said, "move it away"))
    for name in order.settings["envs"]:
        for file in ("default", *_RC):
            if os.path.lexists(steering := folder / name / file):
                said = f"may make another version of {name} the default than .version does, which comes last"
                findings.append(note(str(steering), said, "move it away, or see that it agrees"))
        for file in _RC:
            try:
                told = (folder / file).read_text(errors="replace")
            except OSError:
                continue
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", told):
                said = f"says something of {name}, and may make it another module"
                findings.append(note(str(folder / file), said, "see that it does not"))
    return findings


def _job(order: Order, inside: Inside) -> Rendered:
    """A job script for one environment; it names the folder of the snapshot, which no later one changes."""
    asked, settings, name = order.asked, order.settings, order.asked["env"]
    if not order.command:
        raise UsageError("there is no command for the job", remedy="write it behind --, as: -- python job.py")
    if name not in settings["envs"]:
        known = ", ".join(settings["envs"])
        raise UsageError(f"{name} is none of the environments of this platform", remedy=f"known are {known}")
    if "array" in asked and (fault := sbatch.array_fault(asked["array"])):
        raise UsageError(f"--array {asked['array']}: {fault}", remedy=f"write {sbatch.ARRAY_SAYS}")
    wanted: dict[str, str] = {
        option: value
        for key, option in _DIRECTIVES.items()
        if (value := asked.get(key) or settings.get(key)) is not None
    }
    called = asked.get("name", name)
    file, directives = f"{called}.sbatch", {"job-name": called, **wanted}
    archives: dict[str, Path] = {}
    if asked.get("via") == "install" and not asked.get("broadcast"):
        ready = sbatch.by_install(str(inside.store), name, order.name)
        before = sbatch.IN_INSTALLED.format(name=name)
        job = sbatch.Job(directives, ready, order.command, before, stays=True)
    else:
        where = _root(settings) / name / order.name
        one = next((one for one in _look(order)[0] if one.folder == where), None)
        if one is None:
            remedy = install(name, order.name, where)
            said = f"{name} of {order.name} is not installed there"
            raise PrefixError(said, where=str(where), remedy=remedy)
        ready, command = _ready(order, one), order.command
        if asked.get("broadcast"):
            archives = {_archive(order, one).name: one.prefix}
        if asked.get("via") == "run":
            command = ("haversack", "run", name, "--dir", str(one.folder), "--", *command)
        job = sbatch.Job(directives, ready, command, stays=bool(archives))
    findings = tuple(cluster.refused(wanted, inside))
    return Rendered({file: sbatch.write(order.origin, job)}, findings, archives, file)


def _ready(order: Order, one: Installed) -> str:
    """How a job enters an environment that is installed.  Raises ``UsageError`` where it cannot that way."""
    settings, via, programs = order.settings, order.asked.get("via", "module"), str(one.prefix / "bin")
    if order.asked.get("broadcast"):
        return sbatch.by_broadcast(str(_archive(order, one)))
    if via == "run":
        return sbatch.by_run()
    if via == "activate":
        if (script := activation(one.prefix)) is None:
            raise UsageError(f"{one.name} has no script that activates it", remedy="leave --via out")
        return sbatch.by_activation(str(script), programs)
    return sbatch.by_module(settings["modules"], f"{one.name}/{order.name}", settings["envs"], programs)


def _archive(order: Order, one: Installed) -> Path:
    """Where the one file lies that is sent to nodes.  Raises ``UsageError`` where there cannot be one."""
    name = one.name
    if "via" in order.asked:
        raise UsageError("--via and --broadcast exclude each other", remedy="leave one of them out")
    if name not in order.movable or one.prefix != one.folder:
        raise UsageError(
            f"{name} works only where it was installed, at {one.folder}",
            remedy="run the job from there, or let each node install its own: --via install",
        )
    if order.folder is None:
        raise UsageError("the file that is sent needs a place that every node has", remedy="name it: -o DIR")
    return order.folder / f"{name}-{order.name}.tar"


def _of_modules(order: Order, files: Mapping[str, bytes], inside: Inside) -> list[Finding]:
    """What would keep people from loading the modules, whose files should be these."""
    folder = Path(order.settings["modules"])
    remedy = f"haversack render slurm -o {shlex.quote(str(folder))}"
    if not folder.is_dir():
        return [note(str(folder), "is no folder", remedy)]
    findings = compared(folder, files, PLATFORM.name, remedy)
    installed = {f"{one.name}/{one.version}" for one in _look(order)[0]}
    for module, in_list in left(folder, files, PLATFORM.name).items():
        if module not in installed and not module.rpartition("/")[2].startswith("."):
            # Rendering again removes what it knows of.
            remedies = remedy if in_list else "remove it, or install the environment again"
            said = "names no environment that is installed"
            findings.append(note(str(folder / module), said, remedies))
    done = inside.run(["bash", "--norc", "-c", _AVAILABLE, "-", folder, *order.settings["envs"]])
    if done.code:
        said = "no module command starts here: /etc/profile.d/modules.sh and lmod.sh are not there"
        return [*findings, unknown("module", said, "look on a machine where people log in")]
    for line in done.out.splitlines():
        name, _, elsewhere = line.partition("\t")
        said = f"is a module of {elsewhere} too, and the order of MODULEPATH decides which one is loaded"
        findings.append(note(name, said, "name the environment otherwise, or remove that module"))
    return findings


def _of_pythons(order: Order) -> list[Finding]:
    """The interpreters that virtual environments borrow, which the nodes must have too."""
    found: dict[Path, list[str]] = {}
    for one in _look(order)[0]:
        python = (one.prefix / "bin" / "python").resolve()
        if (one.prefix / "pyvenv.cfg").is_file() and not python.is_relative_to(
            _root(order.settings).resolve()
        ):
            found.setdefault(python, []).append(f"{one.name}/{one.version}")
    remedy = "install with --python PATH of one that every node has"
    return [
        unknown(
            str(python),
            f"is the Python of {', '.join(names)}; whether the nodes have it is not asked",
            remedy,
        )
        for python, names in sorted(found.items())
    ]


PLATFORM = Slurm()
