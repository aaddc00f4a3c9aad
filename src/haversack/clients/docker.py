"""docker: ``daemon.json``.

Docker mirrors Docker Hub alone, and falls back to it.  Images of other hosts it takes by the mirror's own
name: ``docker pull mirror.example/ghcr.io/owner/image:tag``.  JSON has no comments, and docker refuses keys
that it does not know: this file does not say where it is from.
"""

from __future__ import annotations

import json

from haversack.clients import Client, Served


def _files(served: Served) -> dict[str, str]:
    # Docker takes no path in the address of a mirror.
    if not served.host or served.path:
        return {}
    value: dict[str, list[str]] = {"registry-mirrors": [served.base]}
    if served.plain:
        value["insecure-registries"] = [served.host]
    return {"daemon.json": json.dumps(value, indent=2) + "\n"}


CLIENT = Client(_files, in_pods=False)
