"""uv: ``uv.toml``, and ``locks.sed`` for locks that name each file by its URL.

uv reads nothing of pip's configuration.  ``uv sync --frozen`` takes files from the URLs in ``uv.lock`` and
asks no index, whatever is configured: for those the part before the path is replaced, and nothing else.
"""

from __future__ import annotations

import json
import re

from haversack.clients import Client, Served, text

PYTHONS = "https://github.com/astral-sh/python-build-standalone/releases/download"
"""Where uv looks for interpreters."""


def _files(served: Served) -> dict[str, str]:
    lines = [
        *served.head("For uv: /etc/uv/uv.toml, ~/.config/uv/uv.toml, or UV_CONFIG_FILE."),
        *_pythons(served),
        "",
        "[[index]]",
        f"url = {json.dumps(served.index)}",
        "default = true",
    ]
    found = {"uv.toml": text(lines)}
    if upstream := served.upstream():
        told = (
            "For locks that name files by URL (uv.lock, pylock.toml); their hashes stay, and are checked:",
            "sed -f locks.sed uv.lock > mirrored/uv.lock",
        )
        rules = [f"s#{_pattern(server)}/#{_plain(place)}/#g" for server, place in upstream.items()]
        found["locks.sed"] = text([*served.head(*told), *rules])
    return found


def _pythons(served: Served) -> list[str]:
    if mirror := _mirror(served):
        return [f"python-install-mirror = {json.dumps(mirror)}"]
    return ['python-downloads = "never"']


def _mirror(served: Served) -> str | None:
    """Where interpreters are served, if the snapshot holds any."""
    held = any(
        artifact.origin.startswith(f"{PYTHONS}/")
        for environment in served.snapshot.environments
        for artifact in environment.artifacts
    )
    return f"{served.base}/upstream/{PYTHONS.removeprefix('https://')}" if held else None


def _pattern(literal: str) -> str:
    """A text as a basic regular expression that finds just it."""
    return re.sub(r"([.*^$\[\]\\#])", r"\\\1", literal)


def _plain(literal: str) -> str:
    """A text as what sed puts in."""
    return re.sub(r"([&\\#])", r"\\\1", literal)


def _variables(served: Served) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(
        ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_NO_CONFIG")
    )
    found |= {"UV_CONFIG_FILE": served.at("uv.toml"), "UV_DEFAULT_INDEX": served.index}
    if mirror := _mirror(served):
        return {**found, "UV_PYTHON_INSTALL_MIRROR": mirror}
    return {**found, "UV_PYTHON_DOWNLOADS": "never"}


CLIENT = Client(_files, _variables)
