"""A site's mirror in a network of its own, where there is nothing but loopback, with everything that crossed.

::

    site = crossed(tmp_path)                                # locked, packed and received by the command line
    with Airgap() as gap, Nginx(site, gap) as server:       # or Live(site, gap)
        done = gap("pip", "download", "demo", env=site.environ(server))
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from uv import find_uv_bin

from haversack.ports import cage
from tests.support import tiny
from tests.support.channel import ChannelServer
from tests.support.conda import make_conda, write_channel
from tests.support.registry import Layout
from tests.support.site import Lab
from tests.support.wheels import make_wheel

HOST = "127.0.0.1:8080"
BASE = f"http://{HOST}"
"""Where every mirror listens: each has a network of its own."""
IMAGE = "docker.io/library/tiny:1"
OTHER = "registry.example.org:5000/team/tool:2"
_TINY = '#include <unistd.h>\nint main(void) { return write(1, "hello from inside\\n", 18) != 18; }\n'


class Airgap:
    """A network namespace with loopback alone, proven closed before anything runs in it.  Needs root."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-I", "-S", cage.__file__, "sh", "-c", "echo closed; exec sleep 3600"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "closed\n"

    def argv(self, *words: str | Path) -> list[str]:
        """The argv that runs a program in there."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *map(str, words)]

    def __call__(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in there; the exit code is for the caller to read."""
        return subprocess.run(
            self.argv(*words),
            env={"PATH": os.environ["PATH"], **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder.stdout
        self._holder.terminate()
        self._holder.wait()
        self._holder.stdout.close()


@dataclass(frozen=True)
class Crossed:
    """A site inside: its store, where it was made, and what a project outside locked with uv."""

    folder: Path
    store: Path
    git: str
    channel: str
    digests: Mapping[str, str]

    def rendered(self, to: Path, *words: str | Path, base: str = BASE) -> dict[str, str]:
        """The clients' files, and the environment that ``env.sh`` gives a shell that knew other mirrors before."""
        done = tiny.haversack("render", "clients", "-o", to, "--base-url", base, *words, store=self.store)
        assert done.returncode == 0, done.stderr
        before = {
            "PATH": os.environ["PATH"],
            "PIP_EXTRA_INDEX_URL": "http://192.0.2.1/",
            "UV_INDEX": "http://192.0.2.1/",
        }
        read = subprocess.run(
            ["sh", "-euc", f". '{to}/env.sh'; env -0"], env=before, capture_output=True, text=True, check=True
        )
        found = dict(line.split("=", 1) for line in read.stdout.split("\0") if line)
        return {**found, "HOME": str(to), "XDG_CACHE_HOME": str(to / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}


def crossed(folder: Path) -> Crossed:
    """Lock, pack and receive wheels, a conda package, two images, a file and a repository."""
    with Lab(folder / "out") as lab:
        make_wheel(
            lab.wheels, "demo", "1.0", modules={"demo/__init__.py": "NAME = 'demo'\n"}, requires=["base"]
        )
        make_wheel(lab.wheels, "base", "2.0", modules={"base/__init__.py": ""})
        conda = folder / "conda" / "channel"
        write_channel(
            conda, [make_conda(conda, "data", "1.0", noarch="generic", files={"share/data": b"data\n"})]
        )
        layout = Layout(lab.root / "layout")
        digests = {
            IMAGE: layout.image("tiny", {"tiny": program(folder)}, ("linux/amd64", "linux/arm64")),
            OTHER: layout.image("tool", {"tool": b"tool"}),
        }
        git = (lab.root / "fraud").as_uri()
        _repository(lab.root / "fraud")
        lab.write("code.txt", "0123456789" * 100)
        lab.write("environment.yml", "dependencies:\n- data\n")
        with ChannelServer(folder / "conda") as server:
            channel = f"{server.url}channel"
            lab.declare(
                "demo",
                more=f'[channel.stack]\nurl = "{channel}"\n'
                '[env.geo]\nkind = "conda"\nfile = "environment.yml"\nchannels = ["stack"]\ntargets = ["here"]\n'
                f'[[image]]\nref = "oci:layout:tiny"\nas = "{IMAGE}"\nplatforms = ["linux/amd64", "linux/arm64"]\n'
                f'[[image]]\nref = "oci:layout:tool"\nas = "{OTHER}"\n'
                '[[file]]\nname = "code.txt"\nurl = "code.txt"\n'
                f'[project.fraud]\ngit = "{git}"\nrev = "v1"\n',
            )
            for words in (("lock",), ("pack", "--no-rehearse", "-o", folder / "bundle")):
                done = lab(*words)
                assert done.returncode == 0, done.stdout + done.stderr
        _uv_project(lab, folder / "project")
    done = tiny.haversack("receive", folder / "bundle", store=folder / "store")
    assert done.returncode == 0, done.stderr
    return Crossed(folder, folder / "store", git, channel, digests)


def program(folder: Path) -> bytes:
    """A program that needs nothing of an image."""
    (folder / "tiny.c").write_text(_TINY)
    subprocess.run(["gcc", "-static", "-Os", "-o", "tiny", "tiny.c"], cwd=folder, check=True)
    return (folder / "tiny").read_bytes()


def _repository(folder: Path) -> None:
    """A repository with two commits and a tag."""
    for words in (
        ("init", "-q", "-b", "main", "."),
        ("commit", "-q", "--allow-empty", "-m", "one"),
        ("commit", "-q", "--allow-empty", "-m", "two"),
        ("tag", "v1"),
    ):
        folder.mkdir(exist_ok=True)
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *words], cwd=folder, check=True
        )


def _uv_project(lab: Lab, folder: Path) -> None:
    """A project that was locked with uv outside; its lock names files by the index's URLs."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'
    )
    subprocess.run(
        [find_uv_bin(), "lock", "-q", "--python", sys.executable, "--default-index", lab.index.url],
        cwd=folder,
        env={**lab.environ, "UV_CACHE_DIR": str(folder / "cache")},
        check=True,
    )


class _Server(ABC):
    """A mirror at ``base`` in an air gap."""

    base = BASE

    def __init__(self, site: Crossed, gap: Airgap) -> None:
        self._site, self._gap = site, gap
        # Not below a folder that only root may enter: nginx's workers are nobody.
        self._home = tempfile.TemporaryDirectory(dir=site.folder)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server

    @abstractmethod
    def argv(self, home: Path) -> Sequence[str | Path]:
        """What to run."""

    def __enter__(self) -> Self:
        words = self._gap.argv(*self.argv(Path(self._home.name)))
        self._process = subprocess.Popen(
            words,
            env=tiny.environ(self._site.store),
            # nginx writes to where it is started.
            cwd=self._home.name,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        for _ in range(200):
            if self._gap("curl", "-skf", f"{self.base}/healthz").returncode == 0:
                return self
            assert self._process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(self.log()[-2000:])

    def log(self) -> str:
        """What the server said so far."""
        self._log.seek(0)
        return self._log.read().decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        self._log.close()
        self._home.cleanup()


class Nginx(_Server):
    """nginx over an export, with the configuration in it as it is."""

    def argv(self, home: Path) -> Sequence[str | Path]:
        """See the base."""
        done = tiny.haversack("serve", "--export", home / "www", "--base-url", BASE, store=self._site.store)
        assert done.returncode == 0, done.stderr
        # pytest's folders admit root alone, and nginx's workers are somebody else.
        return ["nginx", "-e", "stderr", "-p", f"{home}/www/", "-c", "nginx.conf", "-g", "user root;"]


class Live(_Server):
    """haversack's own server over the store."""

    def argv(self, home: Path) -> Sequence[str | Path]:
        """See the base."""
        return tiny.command("serve", "--listen", HOST)


class Guarded(_Server):
    """haversack's own server with TLS by a CA of the site, for one user with a password."""

    base = f"https://{HOST}"
    login = ("ada", "correct-horse")

    def argv(self, home: Path) -> Sequence[str | Path]:
        """See the base."""
        store = self._site.store
        made = tiny.haversack("ca", "create", self.ca.parent, "--name", "Site CA", store=store)
        assert made.returncode == 0, made.stderr
        users = home / "users.toml"
        words = tiny.command("user", "add", "--password-stdin", users, self.login[0])
        subprocess.run(words, input=f"{self.login[1]}\n", text=True, check=True, env=tiny.environ(store))
        rules = {"/": self.login[0], "/healthz": "*"}
        users.write_text(
            users.read_text()
            + "".join(f'[[rule]]\npath = "{p}"\nallow = ["{who}"]\n' for p, who in rules.items())
        )
        return tiny.command("serve", "--listen", HOST, "--tls-ca", self.ca.parent, "--auth", users)

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the server."""
        return Path(self._home.name) / "ca" / "ca.pem"


SERVERS: dict[str, Callable[[Crossed, Airgap], _Server]] = {"nginx": Nginx, "live": Live}
