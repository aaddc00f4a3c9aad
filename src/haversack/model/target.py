"""Targets: the kinds of machine inside.

One noun is the only source for PEP 508 markers, wheel tags (PEP 425, 600) and ``uv``'s
``--python-platform``; no caller works any of them out from the machine it happens to run on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # packaging takes a third of the start of a command, and most commands ask no target for markers or tags.
    from packaging.markers import Environment
    from packaging.tags import Tag

# platform -> (os_name, platform_machine, platform_system, sys_platform, OCI os, OCI architecture)
PLATFORMS: dict[str, tuple[str, str, str, str, str, str]] = {
    "linux-x86_64": ("posix", "x86_64", "Linux", "linux", "linux", "amd64"),
    "linux-aarch64": ("posix", "aarch64", "Linux", "linux", "linux", "arm64"),
    "macos-arm64": ("posix", "arm64", "Darwin", "darwin", "darwin", "arm64"),
    "macos-x86_64": ("posix", "x86_64", "Darwin", "darwin", "darwin", "amd64"),
    "windows-amd64": ("nt", "AMD64", "Windows", "win32", "windows", "amd64"),
    "windows-arm64": ("nt", "ARM64", "Windows", "win32", "windows", "arm64"),
}
# PEP 600 gives each legacy tag its place on the glibc ladder.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# The glibc minors that `uv pip compile --python-platform` knows (uv 0.13), besides manylinux2014 = 2.17.
_UV_GLIBC = (17, 28, *range(31, 41))
_UV_PLATFORM = {
    "macos-arm64": "aarch64-apple-darwin",
    "macos-x86_64": "x86_64-apple-darwin",
    "windows-amd64": "x86_64-pc-windows-msvc",
    "windows-arm64": "aarch64-pc-windows-msvc",
}
_ANY = "any"
DEFAULT_GLIBC = "2.28"
DEFAULT_MACOS = "14.0"
# What pixi takes for a Linux that says nothing of its kernel (its default system requirements).
DEFAULT_KERNEL = "4.18"
# platform -> conda's subdir, and the oldest processor of it in conda's words (archspec).
_CONDA = {
    "linux-x86_64": ("linux-64", "x86_64"),
    "linux-aarch64": ("linux-aarch64", "aarch64"),
    "macos-arm64": ("osx-arm64", "m1"),
    "macos-x86_64": ("osx-64", "x86_64"),
    "windows-amd64": ("win-64", "x86_64"),
    "windows-arm64": ("win-arm64", "aarch64"),
}

_NAME = re.compile(
    r"(?P<platform>(?:linux|macos|windows)-[a-z0-9_]+)"
    r"(?:-(?:glibc(?P<glibc>\d+\.\d+)|(?P<legacy>manylinux2014)|macos(?P<macos>\d+(?:\.\d+)?)))?"
    r"-py(?P<major>3)\.?(?P<minor>\d+)"
)
_PYTHON = re.compile(r"3\.\d+(\.\d+)?")
_VERSION = re.compile(r"\d+\.\d+")


class VirtualPackage(NamedTuple):
    """What a machine is, as a conda package that nobody installs (``__glibc=2.28=0``)."""

    name: str
    version: str
    build: str


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine: ``platform``, ``glibc`` (Linux) or ``macos`` (macOS) release, ``python``.

    ``python`` is ``3.11`` or ``3.11.7``; without a patch number markers see ``3.11.0``, as ``uv`` does.
    ``kernel`` is the release of Linux, ``archspec`` the processor in conda's words (``x86_64_v3``).
    ``name`` is how the site calls it.  Raises :class:`ValueError` for a platform or version that is none.
    What is for no machine in particular (images, files, projects) has the target :data:`ANY`.
    """

    name: str
    platform: str
    python: str
    glibc: str | None = None
    macos: str | None = None
    cuda: str | None = None
    kernel: str | None = None
    archspec: str | None = None

    def __post_init__(self) -> None:
        if self.platform == _ANY == self.python == self.name:
            return
        if self.platform not in PLATFORMS:
            raise ValueError(f"unknown platform {self.platform!r}; known are {', '.join(PLATFORMS)}")
        if not _PYTHON.fullmatch(self.python):
            raise ValueError(f"python {self.python!r} is not a version like 3.11 or 3.11.7")
        for field, system in (("glibc", "linux"), ("kernel", "linux"), ("macos", "macos")):
            value = getattr(self, field)
            if value is not None and not self.platform.startswith(system):
                raise ValueError(f"{field} belongs to {system} platforms, not to {self.platform}")
            if value is not None and not _VERSION.fullmatch(value):
                raise ValueError(f"{field} {value!r} is not a version like 2.28")
        if self.platform.startswith("linux") and self.glibc is None:
            object.__setattr__(self, "glibc", DEFAULT_GLIBC)
        if self.platform.startswith("macos") and self.macos is None:
            object.__setattr__(self, "macos", DEFAULT_MACOS)

    @classmethod
    def from_name(cls, text: str, *, name: str | None = None) -> Target:
        """The target that a name like ``linux-x86_64-glibc2.28-py311`` says.

        Forms: ``linux-ARCH[-glibcX.Y | -manylinux2014]-py3Y``, ``macos-ARCH[-macosX.Y]-py3Y``,
        ``windows-ARCH-py3Y``.  Raises :class:`ValueError`.
        """
        match = _NAME.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a target name like linux-x86_64-glibc2.28-py311")
        macos = match["macos"]
        if macos and "." not in macos:
            macos += ".0"
        return cls(
            name=name or text,
            platform=match["platform"],
            python=f"{match['major']}.{match['minor']}",
            glibc="2.17" if match["legacy"] else match["glibc"],
            macos=macos,
        )

    @property
    def long_name(self) -> str:
        """What :meth:`from_name` reads: ``linux-x86_64-glibc2.28-py311``."""
        library = f"-glibc{self.glibc}" if self.glibc else f"-macos{self.macos}" if self.macos else ""
        return f"{self.platform}{library}-py{self.python_short.replace('.', '')}"

    @property
    def python_minor(self) -> tuple[int, int]:
        """Major and minor version, as ``(3, 11)``."""
        major, minor, *_ = self.python.split(".")
        return int(major), int(minor)

    @property
    def python_short(self) -> str:
        """Major and minor version, as ``"3.11"``."""
        return "{}.{}".format(*self.python_minor)

    @property
    def subdir(self) -> str:
        """Where a conda channel keeps what is for this target: ``linux-64``, ``noarch`` for any."""
        return "noarch" if self.platform == _ANY else _CONDA[self.platform][0]

    def virtual_packages(self) -> tuple[VirtualPackage, ...]:
        """The virtual packages of conda (CEP 30) that this target has."""
        if self.glibc is not None:
            system = {"__unix": "0", "__linux": self.kernel or DEFAULT_KERNEL, "__glibc": self.glibc}
        elif self.macos is not None:
            system = {"__unix": "0", "__osx": self.macos}
        else:
            system = {"__win": "0"}
        if self.cuda is not None:
            system["__cuda"] = self.cuda
        found = [VirtualPackage(name, version, "0") for name, version in system.items()]
        return (*found, VirtualPackage("__archspec", "1", self.archspec or _CONDA[self.platform][1]))

    @property
    def oci_platform(self) -> dict[str, str]:
        """``os`` and ``architecture`` as the OCI image index spells them; nothing for any."""
        if self.platform == _ANY:
            return {}
        *_, system, architecture = PLATFORMS[self.platform]
        return {"architecture": architecture, "os": system}

    def markers(self) -> Environment:
        """The PEP 508 environment of this target (CPython)."""
        os_name, machine, system, sys_platform, *_ = PLATFORMS[self.platform]
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": os_name,
            "platform_machine": machine,
            "platform_release": "",
            "platform_system": system,
            "platform_version": "",
            "python_full_version": full,
            "platform_python_implementation": "CPython",
            "python_version": self.python_short,
            "sys_platform": sys_platform,
        }

    def platform_tags(self) -> list[str]:
        """Platform tags, best first: the whole ladder, since one tag finds only itself."""
        _, _, arch = self.platform.partition("-")
        if self.platform.startswith("windows"):
            return [f"win_{arch}"]
        if self.macos is not None:
            from packaging import tags

            major, minor = map(int, self.macos.split("."))
            return list(tags.mac_platforms((major, minor), arch))
        assert self.glibc is not None
        major, minor = map(int, self.glibc.split("."))
        ladder = []
        for step in range(minor, 4, -1):
            ladder.append(f"manylinux_{major}_{step}_{arch}")
            # PEP 599: manylinux2014 is the oldest that aarch64 has.
            if step in _LEGACY and (arch == "x86_64" or step == 17):
                ladder.append(f"{_LEGACY[step]}_{arch}")
        return [*ladder, f"linux_{arch}"]

    def tags(self) -> list[Tag]:
        """Every wheel tag that installs on this target, best first."""
        from packaging import tags

        python = self.python_minor
        abi = "cp{}{}".format(*python)
        platforms = self.platform_tags()
        return [*tags.cpython_tags(python, [abi], platforms), *tags.compatible_tags(python, abi, platforms)]

    def uv_platform(self) -> str:
        """The value of ``uv --python-platform`` nearest below this target; ``ValueError`` where there is none."""
        if self.glibc is None:
            return _UV_PLATFORM[self.platform]
        _, _, arch = self.platform.partition("-")
        major, minor = map(int, self.glibc.split("."))
        known = [step for step in _UV_GLIBC if step <= minor and major == 2]
        if not known:
            raise ValueError(f"wheels are resolved for glibc 2.17 to 2.x, not for {self.glibc}")
        return f"{arch}-manylinux_2_{known[-1]}"

    def runs_on(self, machine: Target) -> bool:
        """Whether what was made for this target runs on ``machine`` (platform and system library only)."""

        def release(text: str | None) -> tuple[int, ...]:
            return tuple(map(int, (text or "0.0").split(".")))

        return self.platform == _ANY or (
            self.platform == machine.platform
            and release(self.glibc) <= release(machine.glibc)
            and release(self.macos) <= release(machine.macos)
        )

    def to_json(self) -> dict[str, str]:
        """The fields that are set, as a lock or a profile writes them."""
        pairs = {
            "platform": self.platform,
            "python": self.python,
            "glibc": self.glibc,
            "macos": self.macos,
            "cuda": self.cuda,
            "kernel": self.kernel,
            "archspec": self.archspec,
        }
        return {key: value for key, value in pairs.items() if value is not None}


ANY = Target(_ANY, _ANY, _ANY)
"""The target of what is for no machine in particular; it runs on each, and has neither markers nor tags."""
