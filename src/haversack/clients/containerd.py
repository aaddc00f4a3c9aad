"""containerd, and the Kubernetes nodes on it: ``certs.d/<host>/hosts.toml``.

The mirror stands as ``server`` and not beside it: containerd would dial the registry itself as soon as the
mirror has to say no.  Its path names the registry (``override_path``), so that any static server will do.
"""

from __future__ import annotations

import json

from haversack.clients import CA, Client, Served, text


def _files(served: Served) -> dict[str, str]:
    if not served.host:
        return {}
    found = {}
    for host, place in served.registries().items():
        url = json.dumps(f"{served.base}/v2/{place}")
        own = ['capabilities = ["pull", "resolve"]', "override_path = true"]
        if served.ca:
            own.append(f"ca = {json.dumps(served.at(CA))}")
        lines = [
            *served.head(
                f"For containerd: /etc/containerd/certs.d/{host}/hosts.toml, and in its config.toml",
                'config_path = "/etc/containerd/certs.d" of the registry.',
            ),
            f"server = {url}",
            *own,
            # containerd 1.6 reads no file without such a table.
            f"[host.{url}]",
            *own,
        ]
        found[f"certs.d/{host}/hosts.toml"] = text(lines)
    return found


CLIENT = Client(_files, in_pods=False)
