"""Logins that ``docker login``, ``podman login`` and ``skopeo login`` wrote down.

docker's ``config.json`` and the ``auth.json`` of containers-auth.json(5): ``auths`` holds logins by registry in
base64, ``credHelpers`` and ``credsStore`` name programs (``docker-credential-NAME get``) that keep them.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from haversack.model.site import Credentials

# A keychain may ask a person to unlock it; without an answer the run must still come to an end.
_SECONDS = 120.0
_HUB = "https://index.docker.io/v1/"
"""What docker calls its own registry in its configuration."""


def files(environ: Mapping[str, str]) -> list[Path]:
    """Where logins may stand, first the files of podman (``REGISTRY_AUTH_FILE`` names another), then docker's."""
    if environ.get("REGISTRY_AUTH_FILE"):
        return [Path(environ["REGISTRY_AUTH_FILE"])]
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    found = []
    if environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    found.append(home / ".config" / "containers" / "auth.json")
    docker = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home / ".docker"
    return [*found, docker / "config.json"]


def find(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[Credentials | None, str]:
    """The login of a registry that goes by any of some names, or ``None`` and why there is none.

    No text repeats anything of what was read.
    """
    wanted = {*names, *(f"https://{name}" for name in names), *(f"https://{name}/v2/" for name in names)}
    if "docker.io" in names:
        wanted |= {_HUB, "index.docker.io"}
    problems = []
    for path in files(environ):
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_bytes())
            found = _in(config, wanted, environ)
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
        except (ValueError, TypeError, AttributeError):
            problems.append(f"{path} is not a file of logins")
        except subprocess.TimeoutExpired:
            problems.append(f"the program that {path} names did not answer within {_SECONDS:.0f} s")
        else:
            if found:
                return found, ""
    return None, "; ".join(problems) or f"nobody is logged in at {names[0]}"


def _in(config: Mapping[str, Any], wanted: set[str], environ: Mapping[str, str]) -> Credentials | None:
    for key, program in _programs(config, wanted):
        if found := _ask(program, key, environ):
            return found
    for key, entry in (config.get("auths") or {}).items():
        if key.rstrip("/") not in {name.rstrip("/") for name in wanted} or not entry.get("auth"):
            continue
        name, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
        if colon:
            return Credentials(name, password.rstrip("\0"))
    return None


def _programs(config: Mapping[str, Any], wanted: set[str]) -> Iterator[tuple[str, str]]:
    """What to ask which program for: the registry's own first, then the one that keeps everything."""
    for key, program in (config.get("credHelpers") or {}).items():
        if key in wanted:
            yield key, program
    if config.get("credsStore"):
        yield from ((key, config["credsStore"]) for key in sorted(wanted))


def _ask(program: str, key: str, environ: Mapping[str, str]) -> Credentials | None:
    path = shutil.which(f"docker-credential-{Path(program).name}", path=environ.get("PATH"))
    if path is None:
        return None
    done = subprocess.run(
        [path, "get"],
        input=key.encode(),
        env=dict(environ),
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        return None
    told = json.loads(done.stdout)
    return Credentials(str(told["Username"]), str(told["Secret"]))
