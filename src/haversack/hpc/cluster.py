"""What Slurm says of its nodes (sinfo(1)) and of itself (scontrol(1)), and which jobs it would refuse for that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from haversack.errors import HaversackError
from haversack.formats import sbatch
from haversack.hpc.installed import note
from haversack.model.finding import Finding, unknown
from haversack.ports import Inside

# Of generic resources: gpu:4, gpu:a100:4(S:0-1), and others beside them.
_GPU = re.compile(r"(?:^|,)gpu:(?:([^:,()]+):)?([0-9]+)(?=[,(]|$)")
_ARRAY_SIZE = re.compile(r"MaxArraySize\s*=\s*([0-9]+)$")


@dataclass(frozen=True, slots=True)
class Node:
    """A node in a partition: megabytes of memory, processors, and GPUs by their type (empty where it has none)."""

    name: str
    partition: str
    memory: int
    cpus: int
    gpus: Mapping[str, int] = field(default_factory=dict)


def refused(asked: Mapping[str, str], inside: Inside) -> list[Finding]:
    """What sbatch would refuse of a job with these options, or that nobody here can tell.

    Options are those of sbatch: ``mem``, ``cpus-per-task``, ``gpus``, ``partition`` and ``array``.
    """
    of_array = _too_far(asked["array"], inside) if "array" in asked else []
    return [*of_array, *_of_nodes(asked, inside)]


def _of_nodes(asked: Mapping[str, str], inside: Inside) -> list[Finding]:
    """What no node, or no partition, has of it."""
    if not asked.keys() & {"mem", "cpus-per-task", "gpus", "partition"}:
        return []
    # All: partitions that are hidden take jobs too.
    told = _sinfo(["-a", "-N", "-o", "%N|%P|%m|%c|%G"], inside)
    if isinstance(told, Finding):
        return [told]
    nodes = [node for line in told if (node := _node(line)) is not None]
    known = sorted({node.partition for node in nodes})
    wanted = asked["partition"].split(",") if "partition" in asked else known
    findings = [
        Finding("platform-refuses", f"--partition {name}", "is no partition of this cluster", _one_of(known))
        for name in wanted
        if name not in known
    ]
    if findings:
        return findings
    among = [node for node in nodes if node.partition in wanted]
    where = f"partition {asked['partition']}" if "partition" in asked else "this cluster"
    remedy = "ask for less, or for another partition"
    memory = sbatch.megabytes(asked.get("mem", "0"))
    if memory > (most := max((node.memory for node in among), default=0)):
        said = f"asks for {memory} MB, and no node of {where} has more than {most} MB"
        findings.append(Finding("platform-refuses", f"--mem {asked['mem']}", said, remedy))
    cpus = int(asked.get("cpus-per-task", "0"))
    if cpus > (most := max((node.cpus for node in among), default=0)):
        said = f"asks for {cpus} processors, and no node of {where} has more than {most}"
        findings.append(Finding("platform-refuses", f"--cpus {cpus}", said, remedy))
    if "gpus" in asked and (said := _too_many(asked["gpus"], among, where)):
        findings.append(Finding("platform-refuses", f"--gpus {asked['gpus']}", said, remedy))
    return findings


def _too_far(array: str, inside: Inside) -> list[Finding]:
    """Whether an array has a number that this cluster has no task for: MaxArraySize is the first such one."""
    told = _asked(["scontrol", "show", "config"], inside)
    if isinstance(told, Finding):
        return [told]
    size = next((found[1] for line in told if (found := _ARRAY_SIZE.match(line))), None)
    if size is None:
        return [unknown("scontrol", "says no MaxArraySize", "see: scontrol show config")]
    if (last := sbatch.last_task(array)) < int(size):
        return []
    said = f"has a task {last}, and this cluster numbers tasks below {size} (MaxArraySize)"
    remedy = "write lower numbers, and several arrays or steps within a task where there is more to do"
    return [Finding("platform-refuses", f"--array {array}", said, remedy)]


def _too_many(asked: str, among: Sequence[Node], where: str) -> str:
    """Why there are not as many GPUs, empty where there are; a job may have those of several nodes."""
    kind, _, number = asked.rpartition(":")
    each = {node.name: node.gpus for node in among}
    found = sum(
        n for gpus in each.values() for of, n in gpus.items() if kind.casefold() in {"", of.casefold()}
    )
    if int(number) <= found:
        return ""
    return (
        f"asks for {number} GPUs{f' of type {kind}' if kind else ''}, and the nodes of {where} have {found}"
    )


def _node(line: str) -> Node | None:
    """A line of sinfo; ``None`` for one that says nothing of a node."""
    parts = line.strip().split("|")
    if len(parts) != 5:
        return None
    name, partition, memory, cpus, resources = parts
    # A plus says "and some have more"; a star, that the partition is the default one.
    memory, cpus = memory.rstrip("+"), cpus.rstrip("+")
    if not (memory.isdigit() and cpus.isdigit()):
        return None
    gpus: dict[str, int] = {}
    for kind, number in _GPU.findall(resources):
        gpus[kind] = gpus.get(kind, 0) + int(number)
    return Node(name, partition.rstrip("*"), int(memory), int(cpus), gpus)


def _one_of(known: Sequence[str]) -> str:
    return f"write one of {', '.join(known) or '(none)'}"


def ready(inside: Inside) -> list[Finding]:
    """Whether jobs can be submitted from here, and what only the nodes know."""
    findings = []
    told = _sinfo(["-o", "%T"], inside)
    if isinstance(told, Finding):
        findings.append(told)
    # A sign behind a state says more of it: a star that the node does not answer.
    elif not set(told) & {"idle", "mixed", "allocated", "completing"}:
        said = f"no node can run a job; their states: {', '.join(sorted(set(told))) or 'none'}"
        findings.append(note("sinfo", said, "see: sinfo -R", blocking=True))
    said = (
        "are not asked whether they have the environments' folder, and as new a system library as the targets"
    )
    return [*findings, unknown("nodes", said, "look on one: srun haversack probe; srun ls FOLDER")]


def _sinfo(words: Sequence[str], inside: Inside) -> list[str] | Finding:
    """What sinfo says of each, or a finding if it says nothing."""
    told = _asked(["sinfo", "-h", *words], inside)
    return told if isinstance(told, Finding) else " ".join(told).split()


def _asked(words: Sequence[str], inside: Inside) -> list[str] | Finding:
    """What a program of Slurm says, line by line, or a finding if it says nothing."""
    subject, remedy = words[0], "ask again on a machine that submits jobs"
    try:
        # It waits for minutes for a controller that does not answer.
        done = inside.run(["timeout", "20", *words])
    except HaversackError as problem:
        return unknown(subject, problem.message, remedy)
    if done.code:
        said = done.err.strip().splitlines()[-1:] or ["does not answer"]
        return unknown(subject, f"the cluster is not known: {said[0]}", remedy)
    return done.out.splitlines()
