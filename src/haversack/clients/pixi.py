"""pixi: ``pixi-config.toml``.

Mirrors keep locks and manifests as they are: they name upstream, and pixi asks the mirror.  The same
middleware stands before the wheels of a lock.  Two hosts that pixi asks unseen, to learn how conda packages
are called on PyPI, are led to the mirror as well: it answers at once that it has none.
"""

from __future__ import annotations

import json

from haversack.clients import Client, Served, text

HIDDEN = (
    "https://conda-mapping.prefix.dev",
    "https://raw.githubusercontent.com/prefix-dev/parselmouth",
)
"""Asked by pixi for names on PyPI."""


def _files(served: Served) -> dict[str, str]:
    channels = {url: place for url, place in served.channels().items() if url.startswith(("https:", "http:"))}
    hidden = {url: f"{served.base}/upstream/{url.removeprefix('https://')}" for url in HIDDEN}
    lines = served.head(
        "For pixi: /etc/pixi/config.toml, ~/.pixi/config.toml, or .pixi/config.toml in a project.",
        "Locks stay as they are.  A manifest with `conda-pypi-map = false` asks for no names on PyPI.",
    )
    if channels:
        lines.append(f"default-channels = {json.dumps(list(channels))}")
    if served.ca:
        lines.append('tls-root-certs = "native"  # and SSL_CERT_FILE')
    lines += [
        "",
        "[pypi-config]",
        f"index-url = {json.dumps(served.index)}",
        "extra-index-urls = []",
        'keyring-provider = "disabled"',
        "",
        "[repodata-config]",
        "disable-sharded = true",
        "",
        "[mirrors]",
        *(
            f"{json.dumps(url)} = {json.dumps([place])}"
            for url, place in {**channels, **served.upstream(), **hidden}.items()
        ),
    ]
    return {"pixi-config.toml": text(lines)}


CLIENT = Client(_files)
