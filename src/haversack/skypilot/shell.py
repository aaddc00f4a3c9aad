"""What shells run: variables of the API server, those of its clients, and a script that puts files in place."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from haversack.skypilot import proxies

_QUIET = {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "DO_NOT_TRACK": "1", "SCARF_NO_ANALYTICS": "1"}
_ENDPOINT = "SKYPILOT_API_SERVER_ENDPOINT"
_NO_SERVER_HERE = "SKYPILOT_DISABLE_LOCAL_API_SERVER"


def server(
    origin: str, kubernetes: Mapping[str, Any], exempt: Sequence[str], programs: Path | None = None
) -> bytes:
    """``env.sh``: variables of the API server; ``exempt`` is what goes past the proxy that pods have.

    ``programs`` is the folder of SkyPilot's own, where it is installed; it begins ``PATH``, since SkyPilot looks for
    ``aws`` there and takes AWS for disabled without it (``sky/clouds/aws.py``).  It starts at no endpoint that is not of its machine (``sky/server/common.py``), so that a shell that was a
    client's before forgets it.
    """
    told = {
        **_QUIET,
        # It builds a wheel of itself with pip, which would ask an index for setuptools although that is installed.
        # pip reads this as the value of "build isolation": 0 turns it off.
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    says = ["Read it into the shell that starts the API server, and not into those of clients:  . env.sh"]
    lines = [f"unset {_ENDPOINT} {_NO_SERVER_HERE}", *_found(programs), *_exports(told)]
    return _file(origin, says, [*lines, *_through_proxy(kubernetes, exempt)])


def _found(programs: Path | None) -> list[str]:
    """The line by which shells find SkyPilot's programs, or what to do where nobody knows yet where they will be."""
    if programs is None:
        return [
            "# Put the bin of the environment skypilot first on PATH: it was not installed when this was rendered."
        ]
    return [f'export PATH={shlex.quote(str(programs))}:"$PATH"']


def _through_proxy(kubernetes: Mapping[str, Any], exempt: Sequence[str]) -> list[str]:
    """The same proxy as pods have; a password is read where it is kept, and by whoever may."""
    if not kubernetes.keys() & {"proxy", "proxy_secret"}:
        return []
    lines = [
        "# Its own way out. What it reaches without the proxy (the cluster's API, as kubectl names it) must be in no_proxy."
    ]
    if proxy := kubernetes.get("proxy"):
        lines += [f"export {name}={shlex.quote(proxy)}" for name in proxies.THROUGH]
    else:
        asked = f"kubectl get secret {kubernetes['proxy_secret']} -o 'jsonpath={{.data.proxy}}'"
        first, *others = proxies.THROUGH
        lines += [
            "# Its URL holds a password, and stands in that secret alone: take the # away where this machine may read it.",
            f'# {first}="$({asked} | base64 -d)"; export {first}',
            *(f'# export {name}="${first}"' for name in others),
        ]
    return [*lines, *(f"export {name}={shlex.quote(','.join(exempt))}" for name in proxies.PAST)]


def client(origin: str, endpoint: str | None, programs: Path | None = None) -> bytes:
    """``client.sh``: variables of clients.

    One that knows where the server is starts none of its own where that does not answer (since 0.14).
    """
    there = {_ENDPOINT: endpoint, _NO_SERVER_HERE: "1"} if endpoint else {}
    says = ["Read it into the shell of each client:  . client.sh"]
    return _file(origin, says, [*_found(programs), *_exports({**_QUIET, **there})])


def _exports(told: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(told.items())]


def _file(origin: str, says: Iterable[str], lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in (f"# {origin}", *(f"# {s}" for s in says), *lines)).encode()


def seed(origin: str, tables: list[str]) -> bytes:
    """A script that puts the configuration and the catalogs where SkyPilot looks, and replaces none that somebody edited."""
    lines = [
        "#!/bin/sh",
        f"# {origin}",
        "# Run it as the user of the API server:  sh seed.sh",
        "set -eu",
        'from="$(cd "$(dirname "$0")" && pwd)"',
        'sky="$HOME/.sky"',
        'mkdir -p "$sky"',
        "edited() {",
        '    diff -u "$2" "$1" | head -n 40 >&2 || true',
        '    echo "$2 was edited, or is somebody else\'s, and stays: join them" >&2',
        "    exit 1",
        "}",
        # What was put there last, to tell what somebody edited since.
        'last="$sky/config.haversack.yaml"',
        'if [ -e "$sky/config.yaml" ] && ! cmp -s "$sky/config.yaml" "$from/config.yaml" \\',
        '    && ! cmp -s "$sky/config.yaml" "$last"; then',
        '    edited "$from/config.yaml" "$sky/config.yaml"',
        "fi",
    ]
    places = [(table, *_meta(table)) for table in tables]
    if tables:
        lines += [
            "sum() {",
            '    md5sum < "$1" | cut -c 1-32',
            "}",
            # SkyPilot takes one for edited that is not what the digest beside it says; so is one without, but for ours.
            "look() {",
            '    [ -e "$2" ] && ! cmp -s "$1" "$2" || return 0',
            '    for known in "$3.md5" "$3.haversack"; do',
            '        [ ! -e "$known" ] || [ "$(cat "$known")" != "$(sum "$2")" ] || return 0',
            "    done",
            '    edited "$1" "$2"',
            "}",
        ]
    lines += [f'look "$from/{table}" "$sky/{table}" "$sky/{meta}"' for table, _, meta in places]
    lines += ['cp "$from/config.yaml" "$sky/config.yaml"', 'cp "$from/config.yaml" "$last"']
    folders = {name for table, folder, _ in places for name in (table.rpartition("/")[0], folder)}
    lines += [f'mkdir -p "$sky/{folder}"' for folder in sorted(folders)]
    for table, _, meta in places:
        lines += [
            f'cp "$from/{table}" "$sky/{table}"',
            f'sum "$sky/{table}" > "$sky/{meta}.haversack"',
            # This digest would say that it may be fetched anew.
            f'rm -f "$sky/{meta}.md5"',
        ]
    return "".join(f"{line}\n" for line in lines).encode()


def _meta(table: str) -> tuple[str, str]:
    """The folder beside a table's where SkyPilot keeps digests, and how names of them begin there."""
    version, _, rest = table.removeprefix("catalogs/").partition("/")
    meta = f"catalogs/{version}/.meta/{rest}"
    return meta.rpartition("/")[0], meta
