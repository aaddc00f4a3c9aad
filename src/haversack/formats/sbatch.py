"""Job scripts for Slurm (sbatch(1)), in bash, strict, with every word of a command quoted exactly."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIME = r"[0-9]+(?::[0-5]?[0-9]){0,2}|[0-9]+-(?:[01]?[0-9]|2[0-3])(?::[0-5]?[0-9]){0,2}"
TIME_SAYS = "a time as sbatch takes it: minutes, H:MM:SS or D-HH:MM:SS"
SIZE = r"[1-9][0-9]*[KMGT]?"
SIZE_SAYS = "an amount of memory like 32G (without a letter: megabytes)"
ARRAY = r"[0-9]+(?:-[0-9]+(?::[1-9][0-9]*)?)?(?:,[0-9]+(?:-[0-9]+(?::[1-9][0-9]*)?)?)*(?:%[1-9][0-9]*)?"
ARRAY_SAYS = "task numbers like 0-9, 1,3,7 or 0-99%10"
NAMES = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:,[A-Za-z0-9_][A-Za-z0-9_.-]*)*"
_MEGA = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}

# What the shell of whoever submits may not say about the environment of a job: sbatch hands all of it on.
_CLEAN = """\
for haversack_name in $(compgen -e); do
    case "$haversack_name" in
        CONDA_* | _CONDA_* | MAMBA_* | PIP_* | PIXI_* | PYTHON* | RATTLER_* | UV_* | LD_PRELOAD | VIRTUAL_ENV)
            unset "$haversack_name" ;;
    esac
done
"""
# A batch shell is no login shell, and has no `module` unless the one that submitted handed it on.
_MODULES = """\
for haversack_init in /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; do
    if ! type module > /dev/null 2>&1 && [ -r "$haversack_init" ]; then . "$haversack_init" || :; fi
done
"""
# A process on each node makes the job's folder there, says so, and removes it when its standard input ends: when
# this shell closes it, or is gone.  scancel, a time limit and a requeue end all that runs and start nothing new, so
# whoever removes must run by then, and hears no other signal.  A command that is told to end may still need the folder
# to save its work: it has two thirds of KillWait, the seconds between SIGTERM and SIGKILL.  Bash closes its end of a
# coproc that SIGTERM ended, which would be too early, so that hears none.  A requeued job keeps its number, but not the
# folder of its name.  mkdir fails where the folder is there already: nobody else's is entered or removed.
_ON_NODES = """\
haversack_work="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/haversack-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
haversack_on_nodes() { srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@"; }
haversack_wait="$(scontrol show config | sed -n 's/^KillWait *= *\\([0-9]*\\) sec.*/\\1/p')"
# shellcheck disable=SC2016
haversack_keeps='
    trap "" HUP INT QUIT USR1 USR2
    trap "left=$2" TERM
    mkdir -m 700 "$1" && made=yes
    echo "${made:-no}"
    while read -r -t 1 || [ $? -gt 128 ]; do
        if [ "$left" ] && [ "$((left -= 1))" -lt 0 ]; then break; fi
    done
    trap "" TERM
    [ -z "$made" ] || rm -rf "$1"
'
coproc haversack_keeper {
    trap "" HUP INT QUIT TERM USR1 USR2
    SLURM_OVERLAP=1 haversack_on_nodes --mem=0 bash -c "$haversack_keeps" - "$haversack_work" "$((${haversack_wait:-30} * 2 / 3))"
}
haversack_kept=("${haversack_keeper[@]}" "$haversack_keeper_PID")
# shellcheck disable=SC2317
haversack_ends() {
    eval "exec ${haversack_kept[1]}>&-"
    wait "${haversack_kept[2]}" || :
}
trap haversack_ends EXIT
trap haversack_again=yes TERM
for ((haversack_node = 0; haversack_node < SLURM_JOB_NUM_NODES; haversack_node++)); do
    read -r -u "${haversack_kept[0]}" haversack_made && [ "$haversack_made" = yes ] || exit 1
done
"""
_BROADCAST = """\
sbcast @ARCHIVE@ "$haversack_work/environment.tar"
haversack_on_nodes tar -x -f "$haversack_work/environment.tar" -C "$haversack_work"
export VIRTUAL_ENV="$haversack_work/environment" PATH="$haversack_work/environment/bin:$PATH"
"""


# The command beside a shell that stays gets the signals that are sent to the shell alone (scancel --batch, sbatch
# --signal=B:).  Not SIGTERM: what ends a job sends it to every process.  Without job control bash would start the
# command with SIGINT and SIGQUIT ignored.  A signal ends `wait`, whose answer is the command's only without one.
_BESIDE = """\
set -m
@COMMAND@ <&0 &
set +m
haversack_command=$!
for haversack_signal in HUP INT QUIT USR1 USR2; do
    # shellcheck disable=SC2064
    trap "haversack_again=yes; kill -s $haversack_signal $haversack_command || :" "$haversack_signal"
done
haversack_again=yes
while [ "$haversack_again" ]; do
    haversack_again=""
    haversack_code=0
    wait "$haversack_command" || haversack_code=$?
done
exit "$haversack_code"
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job: the options of sbatch by their names, lines of bash that make it ready, and the command.

    ``before`` stands before the command as it is, unquoted.  ``stays`` says that the shell waits for the command,
    since ``ready`` left it something to do at the end: it does that too when the job is ended early.
    """

    directives: Mapping[str, str]
    ready: str
    command: tuple[str, ...]
    before: str = ""
    stays: bool = False


def megabytes(size: str) -> int:
    """Megabytes (2\u00b2\u2070 bytes, rounded up) of an amount of memory as :data:`SIZE` has it."""
    digits = size.rstrip("KMGT")
    return -int(-int(digits) * _MEGA[size[len(digits) :]] // 1)


def last_task(array: str) -> int:
    """The highest number that task numbers like :data:`ARRAY` name, whether or not a step hits it."""
    numbers = re.sub(r":[0-9]+", "", array.partition("%")[0])
    return max(int(number) for number in re.split("[-,]", numbers))


def array_fault(array: str) -> str:
    """Why no sbatch would take task numbers that are like :data:`ARRAY`, empty where one might."""
    for part in array.partition("%")[0].split(","):
        first, _, last = part.partition(":")[0].partition("-")
        if last and int(last) < int(first):
            return f"{part} ends before it begins"
    return ""


def write(origin: str, job: Job) -> bytes:
    """The script; ``origin`` is one line that says where it comes from."""
    directives = "".join(f"#SBATCH --{name}={value}\n" for name, value in sorted(job.directives.items()))
    command = job.before + shlex.join(job.command)
    # Without a shell in between the command gets the signals that scancel and a time limit send.
    run = _BESIDE.replace("@COMMAND@", command) if job.stays else f"exec {command}\n"
    text = f"#!/bin/bash\n# {origin}\n{directives}\nset -eo pipefail\n{_CLEAN}{job.ready}set -u\n{run}"
    # A word may be a file's name that is no text: its bytes stand as Python keeps them (PEP 383).
    return text.encode(errors="surrogateescape")


def by_module(folder: str, module: str, others: Sequence[str], programs: str) -> str:
    """Load a module of a folder; the job ends unless ``programs`` is then among what stands first in ``PATH``."""
    unload = f"module unload {shlex.join(others)}\n" if others else ""
    return (
        f"{_MODULES}module use {shlex.quote(folder)}\n{unload}"
        f"{_entered(f'module load {shlex.quote(module)}', programs, f'the module {module} did not load')}"
    )


def by_activation(script: str, programs: str) -> str:
    """Source the script that activates an environment, as :func:`by_module` loads one."""
    return _entered(f". {shlex.quote(script)}", programs, f"{script} did not activate its environment")


def by_run() -> str:
    """Nothing but haversack, which does the rest and must be where the job runs."""
    says = "haversack is not on the PATH of this node"
    return f"command -v haversack > /dev/null || {{ echo {shlex.quote(says)} >&2; exit 1; }}\n"


def by_install(store: str, name: str, snapshot: str) -> str:
    """Install an environment to the disk of every node, from a store that they all reach, and remove it at the end.

    :data:`IN_INSTALLED` is what stands before a command then.
    """
    words = shlex.join(["haversack", "--quiet", "--store", store, "install", name, "--snapshot", snapshot])
    # Its cache and its record are of this job, and on this disk too.
    install = (
        f'env XDG_STATE_HOME="$haversack_work/state" {words} --to "$haversack_work/environment" > /dev/null'
    )
    return f"{by_run()}{_ON_NODES}haversack_on_nodes {install}\n"


IN_INSTALLED = 'haversack run {name} --dir "$haversack_work/environment" -- '
"""Run in what :func:`by_install` installed."""


def by_broadcast(archive: str) -> str:
    """Send an archive of a virtual environment to the disk of every node, enter it there, and remove it at the end."""
    return _ON_NODES + _BROADCAST.replace("@ARCHIVE@", shlex.quote(archive))


def _entered(line: str, programs: str, otherwise: str) -> str:
    """Run a line that must put ``programs`` before what ``PATH`` was, perhaps behind other folders."""
    return (
        f'haversack_before="$PATH"\n{line}\ncase ":${{PATH%"$haversack_before"}}" in\n'
        f"    *:{shlex.quote(programs)}:*) ;;\n    *) echo {shlex.quote(otherwise)} >&2; exit 1 ;;\nesac\n"
    )
