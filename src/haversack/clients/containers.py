"""podman, skopeo, buildah and CRI-O: ``registries.conf`` (containers-registries.conf(5), version 2).

A prefix gets another location, and no mirror: the public registry would be asked as soon as the mirror has
to say no.  Names stay as they are.
"""

from __future__ import annotations

import json

from haversack.clients import Client, Served, text

DOCKER = "docker.io"


def _files(served: Served) -> dict[str, str]:
    # The name of an image has no place for a path before it, nor has a folder a registry.
    if not served.host or served.path:
        return {}
    registries = served.registries()
    lines = [
        *served.head(
            "For podman, buildah, CRI-O and skopeo: /etc/containers/registries.conf.  podman and buildah read",
            "CONTAINERS_REGISTRIES_CONF too; skopeo reads no variable, but takes --registries-conf FILE.",
            f"A CA of the site's own: /etc/containers/certs.d/{served.host}/ca.crt, or SSL_CERT_FILE.",
        ),
        f"unqualified-search-registries = [{json.dumps(DOCKER)}]",
    ]
    for host, place in registries.items():
        lines += [
            "",
            "[[registry]]",
            f"prefix = {json.dumps(host)}",
            f"location = {json.dumps(f'{served.host}/{place}')}",
            f"insecure = {json.dumps(served.plain)}",
        ]
    if DOCKER not in registries:
        lines += [
            "",
            "# No image of it crossed; whoever asks is told at once.",
            "[[registry]]",
            f"prefix = {json.dumps(DOCKER)}",
            f"location = {json.dumps(DOCKER)}",
            "blocked = true",
        ]
    if served.plain:
        # What is named by the mirror's own address, as skopeo does.
        lines += ["", "[[registry]]", f"location = {json.dumps(served.host)}", "insecure = true"]
    return {"registries.conf": text(lines)}


def _variables(served: Served) -> dict[str, str | None]:
    if not _files(served):
        return {}
    return {"CONTAINERS_REGISTRIES_CONF": served.at("registries.conf")}


def _shell(served: Served) -> list[str]:
    if not _files(served):
        return []
    return [
        "# skopeo reads no variable for this:",
        'skopeo() { command skopeo --registries-conf "$CONTAINERS_REGISTRIES_CONF" "$@"; }',
    ]


CLIENT = Client(_files, _variables, _shell)
