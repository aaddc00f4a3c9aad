"""How ``uv`` is asked and how its answers are read (uv 0.13).

Pure: argument lists and environments out, texts in.  Every kind that resolves or installs Python packages
goes through here, so that the doors the facts leave open are shut in one place.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from haversack.model.finding import Finding
from haversack.model.site import Credentials, Index
from haversack.model.target import Target

_NEEDS_WHEEL = re.compile(r"Wheels are required for `([^`]+)`")
_YANKED = re.compile(
    r"^warning: `(?P<name>[^`=\s]+)==(?P<version>[^`\s]+)` is yanked(?: \(reason: \"(?P<reason>.*)\"\))?$",
    re.MULTILINE,
)
_SECRET = re.compile(r"(?<=://)[^/\s@]+@")
_UNREACHABLE = re.compile(
    r"Failed to (?:fetch|download)|error sending request|Request failed|HTTP status|tcp connect|dns error|timed out"
    # An index that refuses is to uv one that lacks the package, but for a hint after "No solution found".
    r"|valid authentication credentials|returned a 40[13]",
    re.IGNORECASE,
)
# The requirements of a build were asked for and are not there: nothing failed on the way.
_UNBUILDABLE = re.compile(
    r"build-system\.requires.*No solution found(?!.*(?:credentials|returned a 40))", re.DOTALL
)


def compile_argv(
    inputs: Sequence[str],
    output: Path,
    target: Target,
    python: str,
    *,
    indexes: Sequence[Index] = (),
    exclude_newer: str | None = None,
    build: Sequence[str] = (),
    deps: bool = True,
) -> list[str]:
    """``uv pip compile`` to a pylock file for a target, wheels only but for the packages in ``build``.

    ``output`` is read too: the versions in it are kept where they can be.  ``python`` is the interpreter
    of this machine that uv asks about itself; markers and tags are the target's.  Not quiet: only a warning
    says what is yanked.
    """
    argv = ["uv", "pip", "compile", *inputs, "--format", "pylock.toml", "--output-file", str(output)]
    argv += ["--python", python, "--python-platform", target.uv_platform(), "--python-version", target.python]
    # Without it uv picks a newer version that has only a source distribution for this target.
    argv += ["--only-binary", ":all:", "--no-header", "--no-config"]
    for name in build:
        argv += ["--no-binary", name]
    if exclude_newer:
        argv += ["--exclude-newer", _moment(exclude_newer)]
    if not deps:
        argv.append("--no-deps")
    return argv + index_argv(indexes)


def _moment(text: str) -> str:
    """A day as the moment it ends in UTC: uv reads a bare date in the time zone of the machine."""
    if "T" in text:
        return text
    return (datetime.fromisoformat(text) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")


def index_argv(indexes: Sequence[Index]) -> list[str]:
    """The options that name the indexes of a site; none leaves uv's own default."""
    argv = []
    for index in indexes:
        argv += [
            "--default-index" if index.default else "--index",
            f"{env_name(index.name).lower()}={index.url}",
        ]
    return argv


def env_name(index: str) -> str:
    """An index's name as it stands in the names of environment variables."""
    return re.sub(r"[^A-Z0-9]", "_", index.upper())


def index_env(indexes: Sequence[Index], credentials: Callable[[str], Credentials | None]) -> dict[str, str]:
    """The variables that hand credentials to uv: never on a command line, where every user can read them."""
    env = {}
    for index in indexes:
        found = credentials(index.name)
        if found:
            env[f"UV_INDEX_{env_name(index.name)}_USERNAME"] = found.username
            env[f"UV_INDEX_{env_name(index.name)}_PASSWORD"] = found.password
    return env


def target_env(target: Target) -> dict[str, str]:
    """What uv must know of a target beyond its command line."""
    return {"MACOSX_DEPLOYMENT_TARGET": target.macos} if target.macos else {}


def needs_wheel(stderr: str) -> list[str]:
    """The packages for which uv found no wheel, in its own words."""
    return list(dict.fromkeys(_NEEDS_WHEEL.findall(stderr)))


def yanked(stderr: str) -> dict[tuple[str, str], str]:
    """The chosen packages that were yanked (PEP 592), by name and version, with the reason or ``""``.

    uv takes such a version only where nothing else will do, and says so in a warning; its lock does not.
    """
    return {(match["name"], match["version"]): match["reason"] or "" for match in _YANKED.finditer(stderr)}


def failure(stderr: str, subject: str) -> Finding:
    """What a failed ``uv pip compile`` means, when it is not about a missing wheel."""
    text = "\n".join(line for line in redact(stderr).splitlines() if not line.startswith("warning:")).strip()
    text = text.removeprefix("error: ")
    if "Building source distributions is disabled" in text:
        # uv says it of folders and repositories whose metadata only a build would tell, and names none.
        return Finding(
            "source-unsupported",
            subject,
            "a requirement is a folder or a repository that would have to be built",
            "build a wheel of it and name the wheel, or publish it on an index of yours",
        )
    if "The build backend returned an error" in text:
        remedy = "install what the build needs on this machine, or choose a version that has a wheel"
        return Finding("build-failed", subject, text, remedy)
    if _UNREACHABLE.search(text) and not _UNBUILDABLE.search(text):
        return Finding(
            "fetch-failed", subject, text, "see that the index is up, and its auth in haversack.toml right"
        )
    return Finding(
        "no-solution", subject, text, "loosen the requirement that uv names, or choose another target"
    )


def redact(text: str) -> str:
    """A text without the user names and passwords of URLs."""
    return _SECRET.sub("", text)


def venv_argv(prefix: Path, python: Path) -> list[str]:
    """``uv venv`` at a place from which it will be moved."""
    return [
        "uv",
        "venv",
        "--no-config",
        "--offline",
        "--quiet",
        "--relocatable",
        "--python",
        str(python),
        str(prefix),
    ]


def sync_argv(lock: Path, python: Path, *, copy: bool = False, compile_bytecode: bool = False) -> list[str]:
    """``uv pip sync`` of a path-only lock into an environment, hashes enforced, nothing dialled."""
    return [
        *("uv", "pip", "sync", "--no-config", "--offline", "--no-index", "--require-hashes", "--quiet"),
        *(["--compile-bytecode"] if compile_bytecode else []),
        *("--link-mode", "copy" if copy else "hardlink", "--python", str(python), str(lock)),
    ]


def add_argv(lock: Path, python: Path, *, copy: bool = False) -> list[str]:
    """``uv pip install`` of a path-only lock beside what an environment has, which it leaves alone.

    The environment may say of itself that only its own installer may change it (PEP 668): that is us.
    """
    return [
        *("uv", "pip", "install", "--no-config", "--offline", "--no-index", "--require-hashes", "--no-deps"),
        *("--quiet", "--break-system-packages", "--link-mode", "copy" if copy else "hardlink"),
        *("--python", str(python), "--requirements", str(lock)),
    ]


def check_argv(python: Path) -> list[str]:
    """``uv pip check``: pip check's rule."""
    return ["uv", "pip", "check", "--no-config", "--offline", "--python", str(python)]


def is_full(said: str) -> bool:
    """Whether uv or rattler, both of which are written in Rust, say that a disk or a quota is full."""
    return any(f"(os error {number})" in said for number in (errno.ENOSPC, errno.EDQUOT))
