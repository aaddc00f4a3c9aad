"""A real Slurm, with munge, on a loopback that leads nowhere.

::

    with Cluster(tmp_path / "cluster") as cluster:
        code = cluster.job(script, tmp_path)

It has one node, or ``nodes``, which see this machine's files alike, but each its own at ``cluster.disk``.  Its daemons are children of the test, and end with it.  A second address on the loopback is needed: where
127.0.0.1 is the only one, Slurm's name lookup ignores it and every tool waits for minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.site import plain_environ

MEMORY = 2000
"""Megabytes that a node says it has."""
KILL_WAIT = 6
"""Seconds between SIGTERM and SIGKILL when a job is ended."""

_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
KillWait={kill_wait}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}\n"


class Cluster:
    """The cluster; ``folder`` must lie where nobody but root writes, as munge wants it."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.disks = [folder / f"disk-{number}" for number in range(nodes)]
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environ = {**plain_environ(), "SLURM_CONF": str(folder / "slurm.conf"), "HOME": "/root"}
        self.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"

    def __enter__(self) -> Self:
        host = socket.gethostname().partition(".")[0]
        names = [host] if len(self.disks) == 1 else [f"n{number}" for number in range(len(self.disks))]
        for path in (self.folder / "munge", self.folder / "state", self.disk, *self.disks):
            path.mkdir(parents=True, mode=0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        conf = _CONF.format(folder=self.folder, host=host, port=6817, kill_wait=KILL_WAIT)
        for number, name in enumerate(names):
            conf += _NODE.format(name=name, host=host, port=6818 + number, cpus=os.cpu_count(), memory=MEMORY)
        (self.folder / "slurm.conf").write_text(conf)
        try:
            self._start(
                "unshare",
                "--net",
                "sh",
                "-c",
                "ip link set lo up && ip addr add 10.9.9.1/32 dev lo && exec sleep 3600",
            )
            self.until("ip", "-4", "addr", "show", "dev", "lo", says="10.9.9.1")
            munge = self.folder / "munge"
            self._start_within(
                "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}/socket",
                f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", "--num-threads=2",
            )  # fmt: skip
            self.until("munge", "-S", f"{munge}/socket", "-n", says="MUNGE:")
            self._start_within("slurmctld", "-D")
            for name, disk in zip(names, self.disks, strict=True):
                own = 'mount --bind "$1" "$2" && exec slurmd -D -N "$3"'
                self._start_within("unshare", "--mount", "sh", "-c", own, "-", disk, self.disk, name)
            self.until("sinfo", "-h", "-o", "%t", says="idle\n")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(
        self, *words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program within reach of the cluster, and of nothing else."""
        return subprocess.run(
            self._within(*words), env={**self.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def job(self, script: str | Path, cwd: Path, env: dict[str, str] | None = None) -> int:
        """Submit a script whose output goes to the file ``out``, and wait: its exit code."""
        return self.ended(self.submit(script, cwd, env))

    def submit(self, script: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
        """Submit a script whose output goes to the file ``out``: the number of the job."""
        done = self.run("sbatch", "--parsable", "-o", "out", script, cwd=cwd, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ended(self, job: str) -> int:
        """The exit code of a job, waiting for its end, as ``sbatch --wait``, which asks every other second."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            told = self.run("scontrol", "-o", "show", "job", job).stdout
            states = set(re.findall(r"JobState=(\w+)", told))
            if states and not states & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}:
                return max(int(code) for code in re.findall(r" ExitCode=(\d+):", told))
            time.sleep(0.1)
        raise AssertionError(f"the job does not end: {told}\n{self.log()}")

    def log(self) -> str:
        """What the daemons said, for a test that fails."""
        return "\n".join(log.read_text(errors="replace")[-4000:] for log in sorted(self.folder.glob("*.log")))

    def _within(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._daemons[0].pid}/ns/net", *map(str, words)]

    def _start_within(self, *words: str | Path) -> None:
        self._start(*self._within(*words))

    def _start(self, *words: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            program = shutil.which(words[0], path=self.environ["PATH"])
            assert program, f"{words[0]} is not installed"
            self._daemons.append(
                subprocess.Popen([program, *words[1:]], env=self.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )  # fmt: skip

    def until(self, *words: str, says: str) -> None:
        """Ask until an answer holds a word; a daemon that ended early ends the waiting."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            done = self.run(*words)
            if says in done.stdout:
                return
            assert all(daemon.poll() is None for daemon in self._daemons), self.log()
            time.sleep(0.1)
        raise AssertionError(f"{words} does not say {says}: {done.stdout}{done.stderr}\n{self.log()}")
