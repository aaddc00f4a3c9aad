"""A whole site on loopback: a declaration, an index with everything haversack itself needs, and a store.

::

    with Lab(tmp_path) as lab:
        make_wheel(lab.wheels, "demo", "1.0")
        lab.declare("demo")                                # [env.lab] for this machine
        done = lab("lock", "--json")                       # a real process
        answer = lab.lock()                                # or the verb, in this process

The index is the site's default one, so that no test reaches the network: haversack's own dependencies are
wheels made again from what is installed beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackagePath, distribution
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from haversack.conda.channels import RattlerChannels
from haversack.formats import lockfile
from haversack.formats.declaration import parse
from haversack.kinds import Locked, keys, kinds
from haversack.model.lock import Lock
from haversack.model.site import Site
from haversack.ports import Inside, Outside
from haversack.ports.credentials import IndexCredentials
from haversack.ports.fetch import HttpFetch
from haversack.ports.fetchers import ByScheme
from haversack.ports.machine import probe
from haversack.ports.registry import HttpRegistries
from haversack.ports.run import Programs
from haversack.verbs import lock as locking
from tests.support import tiny
from tests.support.index import Index
from tests.support.wheels import make_wheel

WINDOWS = "windows-amd64-py311"
UV_TAGS = ("py3-none-win_amd64", "py3-none-macosx_11_0_arm64", "py3-none-manylinux_2_17_aarch64")
_FAKE_UV = {"uv/__init__.py": "def find_uv_bin():\n    raise FileNotFoundError('this uv is for tests')\n"}
_FAKE_RATTLER = {"rattler/__init__.py": "# this rattler is for tests\n"}
_FAKE_OBSTORE = {"obstore/__init__.py": "# this obstore is for tests\n"}


def here() -> str:
    """The table ``[target.here]`` of a declaration: this machine."""
    machine = probe("here")
    fields = {**machine.to_json(), "python": machine.python_short}
    fields.pop("cuda", None)
    return "\n".join(["[target.here]", *(f'{key} = "{value}"' for key, value in fields.items())])


class Lab:
    """A site in ``folder``: the declaration in ``site/``, wheels to serve in ``wheels/``, a store.

    ``real_uv`` puts the real uv into the tool's environment; otherwise a stand-in of the same name and
    version travels, which imports and does nothing.  Further words go to :class:`Index`.
    """

    def __init__(self, folder: Path, *, real_uv: bool = False, **index: Any) -> None:
        self.folder = folder
        self.root, self.wheels, self.store = folder / "site", folder / "wheels", folder / "store"
        self.root.mkdir(parents=True)
        serve_tool(self.wheels, real_uv=real_uv)
        self.index = Index(self.wheels, **index)
        # uv keeps what an index said for a while, and another test's index may get the same port.
        self.environ = {**tiny.environ(self.store), "XDG_CACHE_HOME": str(folder / "cache")}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.index.__exit__(kind, error, trace)

    def declare(
        self,
        *requirements: str,
        targets: Sequence[str] = ("here",),
        env: str = "",
        site: str = "",
        auth: str = "none",
        more: str = "",
    ) -> None:
        """Write ``haversack.toml``: one environment ``lab``; ``env``, ``site`` and ``more`` are lines of TOML.

        Without requirements ``env`` says where they come from.
        """
        wanted = ""
        if requirements:
            self.write("requirements.txt", "".join(f"{line}\n" for line in requirements))
            wanted = 'requirements = ["requirements.txt"]\n'
        text = (
            f'[site]\nname = "lab"\n{site}\n[index.main]\nurl = "{self.index.url}"\ndefault = true\nauth = "{auth}"\n'
            f'{here()}\n[env.lab]\nkind = "pip"\n{wanted}targets = {json.dumps(list(targets))}\n{env}\n{more}\n'
        )
        self.write("haversack.toml", text)

    def write(self, name: str, text: str) -> Path:
        """A file of the site's folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def __call__(
        self, *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run haversack in the site's folder, as a process; the exit code is for the caller to read."""
        return subprocess.run(
            tiny.command(*words),
            env={**self.environ, **(env or {})},
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
        )

    def told(self, *words: str | Path, code: int = 0, env: Mapping[str, str] | None = None) -> Any:
        """What haversack says with ``--json``, when it ends as expected."""
        done = self(*words, "--json", env=env)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def site(self) -> Site:
        """The declaration as it is now."""
        return parse(self.root / "haversack.toml", keys())

    def outside(self, site: Site, environ: Mapping[str, str] | None = None) -> Outside:
        """The real ports of the connected side, in an environment of the lab's own."""
        whole = {**self.environ, **(environ or {})}
        credentials = IndexCredentials((*site.indexes, *site.channels, *site.registries), whole)
        inside = tiny.inside(self.store)
        ports = {name: getattr(inside, name) for name in Inside.__slots__}
        ports["run"] = Programs(whole)
        registries = HttpRegistries(
            site.registries, credentials.by_registry, attempts=3, timeout=5, backoff=0.01
        )
        fetch = ByScheme(
            HttpFetch(credentials.by_url, attempts=2, timeout=5, backoff=0.01), docker=registries
        )
        channels = RattlerChannels(inside.cache / "channels", credentials.by_url, attempts=1, timeout=5)
        return Outside(
            **ports,
            fetch=fetch,
            credentials=credentials.by_index,
            channels=channels,
            registries=registries,
        )

    def lock_kind(self, held: Lock | None = None, environ: Mapping[str, str] | None = None) -> list[Locked]:
        """What the kind gives for ``lab`` on each of its targets, without the tool's own environment."""
        site = self.site()
        out = self.outside(site, environ)
        (environment,) = site.environments
        return [
            kinds()[environment.kind].lock(site, environment, site.target(name), held, out)
            for name in environment.targets
        ]

    def names(self, environ: Mapping[str, str] | None = None) -> list[list[str]]:
        """The file names of the wheels that ``lab`` gets on each target; a finding fails the test."""
        locked = self.lock_kind(environ=environ)
        assert [str(finding) for one in locked for finding in one.findings] == []
        return [sorted(artifact.filename for artifact in one.artifacts) for one in locked]

    def findings(self, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Code and whole text of everything locking ``lab`` complains of."""
        return [
            (finding.code, f"{finding} {finding.remedy}")
            for one in self.lock_kind(environ=environ)
            for finding in one.findings
        ]

    def lock(self, *, upgrade: bool = False) -> locking.Answer:
        """The verb in this process, over the lock that is there, which is replaced."""
        site = self.site()
        path = self.root / lockfile.FILENAME
        held = lockfile.read(path.read_bytes(), str(path))[0] if path.exists() else None
        answer = locking.lock(site, held, self.outside(site), upgrade=upgrade)
        path.write_bytes(answer.data)
        return answer


def serve_tool(folder: Path, *, real_uv: bool = False) -> None:
    """Put wheels of everything that haversack requires into ``folder``."""
    for name in ("click", "packaging", "ruamel.yaml", "tqdm", "typing-extensions", "urllib3"):
        again(name, folder)
    make_wheel(folder, "colorama", "0.4.6")
    for name, modules in (("uv", _FAKE_UV), ("py-rattler", _FAKE_RATTLER), ("obstore", _FAKE_OBSTORE)):
        version = distribution(name).version
        for tag in UV_TAGS:
            make_wheel(folder, name, version, tag=tag, modules=modules)
        if real_uv:
            again(name, folder)
        else:
            make_wheel(folder, name, version, tag=f"py3-none-{probe().platform_tags()[-1]}", modules=modules)


def again(name: str, folder: Path) -> Path:
    """The wheel that an installed distribution came from, as good as."""
    found = distribution(name)
    stem = f"{re.sub('[-.]+', '_', found.metadata['Name'])}-{found.version}"
    tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    # Tags that differ in their last part only, as a file name joins them.
    tag = f"{tags[0].rpartition('-')[0]}-{'.'.join(tag.rpartition('-')[2] for tag in tags)}"
    if len({tag.rpartition("-")[0] for tag in tags}) > 1:
        tag = "py2.py3-none-any"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(found.files or (), key=str):
            member = _member(file, stem)
            if member is None:
                continue
            data = Path(str(file.locate())).read_bytes()
            info = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if "/scripts/" in member else 0o100644) << 16
            archive.writestr(info, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{member},sha256={digest},{len(data)}")
        record.append(f"{stem}.dist-info/RECORD,,")
        archive.writestr(f"{stem}.dist-info/RECORD", "\n".join(record) + "\n")
    return path


def _member(file: PackagePath, stem: str) -> str | None:
    """The name in the wheel of an installed file, ``None`` for what the installer made."""
    name = file.as_posix()
    if "__pycache__" in name or re.search(
        r"\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$", name
    ):
        return None
    if not name.startswith("../"):
        return name
    # Programs travel in the wheel; scripts of entry points are made anew by each installer.
    data = Path(str(file.locate())).read_bytes()
    return None if data.startswith(b"#!") else f"{stem}.data/scripts/{file.name}"


def copy_bundle(bundle: Path, dest: Path) -> Path:
    """A bundle's own copy for a test that damages it."""
    shutil.copytree(bundle, dest)
    return dest


def grep(folder: Path, *words: bytes) -> list[str]:
    """The files below ``folder`` that hold any of the words."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def plain_environ() -> dict[str, str]:
    """An environment of nothing but where the system's own programs are."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": os.devnull}
