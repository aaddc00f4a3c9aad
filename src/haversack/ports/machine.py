"""This machine as a target: what ``haversack probe`` captures."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from haversack.errors import ToolError
from haversack.model.target import PLATFORMS, Target


def probe(name: str = "here") -> Target:
    """Platform, system library, Python and CUDA driver of this machine.  Raises ``ToolError`` for an unknown one."""
    system, machine = platform.system(), platform.machine()
    found = next((key for key, (_, m, s, *_) in PLATFORMS.items() if (m, s) == (machine, system)), None)
    if found is None:
        raise ToolError(
            f"{system} on {machine} is no platform that haversack knows",
            remedy=f"known are {', '.join(PLATFORMS)}",
        )
    glibc = platform.libc_ver()[1] if system == "Linux" else None
    if system == "Linux" and not glibc:
        raise ToolError(
            "this Linux has no glibc; haversack knows only targets that have",
            remedy="write the target by hand",
        )
    macos = ".".join(platform.mac_ver()[0].split(".")[:2]) if system == "Darwin" else None
    return Target(
        name=name,
        platform=found,
        python=platform.python_version().rstrip("+"),
        glibc=glibc or None,
        macos=macos if macos is None or "." in macos else f"{macos}.0",
        cuda=_cuda(),
    )


def base_python() -> Path:
    """The interpreter that runs haversack, outside of its virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def _cuda() -> str | None:
    """The CUDA version that the driver supports, or ``None`` without one."""
    driver = Path("/proc/driver/nvidia/version")
    if not driver.exists():
        return None
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    _, _, rest = done.stdout.partition("CUDA Version: ")
    version = rest.split(" ", 1)[0].strip()
    return version or None
