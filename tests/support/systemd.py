"""A machine with systemd as its first process, in namespaces of its own: no network, no trace on this one.

::

    if reason := missing():
        pytest.skip(reason)
    machine = boot(folder, driver, {"etc/systemd/system/x.service": text}, {venv: "/opt/venv"})
    assert machine.text("x.log") == "…"

The machine is this one's file system below a layer that is gone afterwards, with loopback alone.  ``driver`` is a
script of Python's that runs in it as root, as a service; it writes to ``/out``, which is ``machine.folder``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.site import plain_environ

SYSTEMD = "/lib/systemd/systemd"

# A group of its own for the machine's processes: two machines at once would share units' groups otherwise.
_OUTER = """\
set -eu
mount --make-rprivate /
mkdir -p "$1/groups"
mount -t cgroup2 cgroup2 "$1/groups"
mkdir "$1/groups/$2"
echo $$ >"$1/groups/$2/cgroup.procs"
code=0
setpriv --pdeathsig KILL unshare --net --pid --fork --kill-child --uts --ipc --cgroup --mount --mount-proc sh "$1/inner.sh" "$1" || code=$?
echo $$ >"$1/groups/cgroup.procs"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    find "$1/groups/$2" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.2
done
exit "$code"
"""
# systemd(1) as it is started in containers, without the services of this machine, and without a way to its kernel;
# what is copied lies in `tree`, what is bound in `binds`.
_INNER = """\
set -eu
mount --make-rprivate /
mkdir -p "$1/layer"
mount -t tmpfs -o mode=0755 tmpfs "$1/layer"
mkdir "$1/layer/up" "$1/layer/work" "$1/layer/root"
root=$1/layer/root
mount -t overlay -o "lowerdir=/,upperdir=$1/layer/up,workdir=$1/layer/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$1/console" "$root/dev/console"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/var/tmp"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mkdir -p "$root/out"
mount --bind "$1/out" "$root/out"
while read -r from to; do
    mkdir -p "$root$to"
    mount --bind "$from" "$root$to"
done <"$1/binds"
while read -r gone; do rm -rf "$root$gone"; done <"$1/gone"
rm -rf "$root"/etc/systemd/system/*.wants "$root/var/log/journal"
tar -C "$1/tree" --owner=0 --group=0 -cf - . | tar -C "$root" --no-overwrite-dir -xf -
ip link set lo up
mkdir "$root/before"
cd "$root"
pivot_root . before
umount -l before
# Credentials of a service are mounted by a process with mounts of its own (systemd.exec(5), LoadCredential=).
mount --make-rshared /
exec setpriv --bounding-set=-sys_time,-sys_module \\
    env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=driven.target \\
    --log-target=journal --log-level=info --show-status=false
"""
# Only what a driver starts runs: the services of this machine are not wanted by this target.
_TARGET = "[Unit]\nDescription=A driver, and what it starts\nRequires=basic.target\nAfter=basic.target\n"
_DRIVER = """\
[Unit]
Description=The driver of a test
After=basic.target
OnSuccess=driven-end.service
OnFailure=driven-end.service
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=PATH={path} HOME=/root LANG=C.UTF-8
StandardOutput=append:/out/driver.log
StandardError=append:/out/driver.log
ExecStart={python} /driver.py
"""
_END = """\
[Unit]
Description=The end of a test
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=systemctl poweroff -ff
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine left behind: ``folder`` was its ``/out``; ``console`` is what systemd itself complained of."""

    folder: Path
    console: str

    def text(self, name: str) -> str:
        """One of its files; empty if there is none."""
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def json(self, name: str) -> Any:
        """One of its files as JSON; what the driver said stands in the error if there is none."""
        assert (self.folder / name).exists(), self.text("driver.log")[-3000:] + self.console[-2000:]
        return json.loads(self.text(name))


def missing() -> str:
    """Why no machine can be booted here; empty if one can."""
    if sys.platform != "linux" or not Path(SYSTEMD).exists():
        return "there is no systemd here"
    if os.geteuid():
        return "only root boots a machine"
    if not all(map(shutil.which, ("unshare", "setpriv", "ip", "tar"))):
        return "unshare, setpriv, ip or tar is not installed"
    tried = (
        "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/m /mnt/c && mount -t cgroup2 none /mnt/c && "
    )
    tried += "mkdir /mnt/c/haversack-try && rmdir /mnt/c/haversack-try && "
    tried += "mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w none /mnt/m"
    words = (
        "unshare",
        "--net",
        "--pid",
        "--fork",
        "--mount",
        "--uts",
        "--ipc",
        "--cgroup",
        "sh",
        "-c",
        tried,
    )
    done = subprocess.run(words, capture_output=True, text=True, env=plain_environ())
    return f"namespaces or mounts are not allowed here: {done.stderr.strip()}" if done.returncode else ""


def boot(
    folder: Path,
    driver: str,
    tree: Mapping[str, str],
    binds: Mapping[Path, str],
    *,
    seconds: float,
    gone: Sequence[str] = (),
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin",
) -> Machine:
    """Boot, let ``driver`` run to its end, and power off; at the latest after ``seconds``, by force.

    ``tree`` are texts of files by their paths below ``/`` (mode 0644, 0755 for what begins with ``#!``); ``binds``
    are folders of this machine and where they are in that one.  What is
    ``gone`` is not there, whatever this machine has; ``path`` is the driver's PATH.
    """
    (folder / "out").mkdir(parents=True)
    units = {
        "etc/systemd/system/driven.target": _TARGET,
        "etc/systemd/system/driven-end.service": _END,
        "etc/systemd/system/driver.service": _DRIVER.format(python=Path(sys.executable).resolve(), path=path),
        "driver.py": driver,
    }
    for name, text in {**units, **tree}.items():
        file = folder / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    # It empties /tmp, and everything else of this machine's that it knows is there.
    (folder / "tree/etc/systemd/system/systemd-tmpfiles-setup.service").symlink_to("/dev/null")
    wants = folder / "tree/etc/systemd/system/driven.target.wants"
    wants.mkdir()
    (wants / "driver.service").symlink_to("../driver.service")
    (folder / "binds").write_text("".join(f"{own} {to}\n" for own, to in binds.items()))
    (folder / "gone").write_text("".join(f"{name}\n" for name in gone))
    (folder / "outer.sh").write_text(_OUTER)
    (folder / "inner.sh").write_text(_INNER)
    die = ("setpriv", "--pdeathsig", "KILL")
    words = [
        *die,
        "unshare",
        "--mount",
        "sh",
        str(folder / "outer.sh"),
        str(folder),
        f"haversack-{os.getpid()}",
    ]
    env = {**plain_environ(), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=env)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            # The first process of the namespace dies with its parent, and everything else with that.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for number in children.split():
                os.kill(int(number), signal.SIGKILL)
            process.wait(30)
    return Machine(folder / "out", (folder / "console").read_text(errors="replace"))
