"""Programs: an argv list, a scrubbed environment, and a cage on request."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from haversack.errors import ToolError
from haversack.ports import Completed, cage

# What the ambient environment may not say: UV_PYTHON outranks VIRTUAL_ENV, so that a sync could empty
# somebody's interpreter; pip's files and variables name other indexes; PYTHONPATH shadows what is proven.
# Our own variables hold passwords of indexes, and programs here run other people's code: builds and checks.
_SCRUBBED = ("UV_", "PIP_", "CONDA_", "PIXI_", "PYTHON", "_CONDA_", "MAMBA_", "RATTLER_", "HAVERSACK_")
_SCRUBBED_NAMES = {
    *("VIRTUAL_ENV", "NETRC", "LD_PRELOAD"),
    # Set while git runs a hook: git would then work on that repository, whatever folder it is told.
    *(
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    ),
    *("GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
}
_QUIET = {
    "PIP_CONFIG_FILE": os.devnull,
    "UV_NO_CONFIG": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1",
    # uv reads ~/.netrc unasked; haversack hands over the credentials that the declaration names.
    "NETRC": os.devnull,
}


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that steers pip, uv, conda or Python behind our back."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(_SCRUBBED) and name.upper() not in _SCRUBBED_NAMES
    }
    return kept | _QUIET


class Programs:
    """Programs of this machine; see :class:`haversack.ports.Run`.  ``uv`` is the one haversack came with."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = scrubbed(os.environ if environ is None else environ)

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        caged: bool = False,
    ) -> Completed:
        """See the protocol."""
        words = [str(word) for word in argv]
        if words[0] == "uv":
            words[0] = _uv()
        if caged:
            words = [sys.executable, "-I", "-S", cage.__file__, *words]
        try:
            done = subprocess.run(
                words,
                env={**self._environ, **(env or {})},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as problem:
            raise ToolError(
                f"cannot be started: {problem.strerror}", where=words[0], remedy="install it"
            ) from problem
        if caged and done.returncode == cage.OPEN and done.stderr.startswith("cage: "):
            raise ToolError(
                f"the network cannot be taken away here: {done.stderr.strip()}",
                remedy="run as root, or allow user namespaces (kernel.unprivileged_userns_clone)",
            )
        return Completed(tuple(words), done.returncode, done.stdout, done.stderr)

    def cage(self) -> str:
        """See the protocol."""
        if sys.platform != "linux":
            return f"there are no network namespaces on {sys.platform}"
        done = self([sys.executable, "-I", "-S", cage.__file__])
        return done.err.strip() if done.code else ""


# sysconfig, which uv asks, is not safe to enter from two threads at once.
_finding = threading.Lock()


def _uv() -> str:
    with _finding:
        return _find_uv()


@functools.cache
def _find_uv() -> str:
    try:
        return str(find_uv_bin())
    except FileNotFoundError as problem:
        raise ToolError("uv is not installed beside haversack", remedy="install haversack again") from problem
