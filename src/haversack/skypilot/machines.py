"""Commands that make a virtual machine take everything from this site.

SkyPilot pastes each behind ``- `` into the YAML of cloud-init as it is (``sky/templates/aws-ray.yml.j2``): a colon, a
hash or a quote in it would make another document.  Base64 has none of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HOME = "/etc/haversack"
"""Where pods and machines have what they are told in files."""
CA = "ca.pem"
_SYSTEM = "/usr/local/share/ca-certificates/haversack.crt"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Mirror:
    """This site's mirror, as nodes are told of it.

    ``variables`` are those of pods; ``files`` those of virtual machines by their absolute path, ``ca`` the
    certificates (PEM) among them that the system shall trust; ``docker`` is what docker of a machine is told in
    ``daemon.json``, ``registry`` the host (with its port) from which it pulls.
    """

    host: str
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    ca: str | None = None
    docker: Mapping[str, Sequence[str]] = field(default_factory=dict)
    registry: str = ""


def commands(mirror: Mirror) -> list[str]:
    """What tells a machine of the mirror."""
    found = []
    for path, text in sorted(mirror.files.items()):
        folder = path.rpartition("/")[0]
        found.append(f"mkdir -p {folder} && {_decoded(text)} > {path}")
    if mirror.ca:
        found.append(f"cp {HOME}/{CA} {_SYSTEM} && update-ca-certificates")
        # uv trusts its own list otherwise; sessions of ssh read this file (pam_env).
        found.append(f"echo SSL_CERT_FILE={_BUNDLE} >> /etc/environment")
        if mirror.registry:
            at = f"/etc/docker/certs.d/{mirror.registry}"
            found.append(f"mkdir -p {at} && cp {HOME}/{CA} {at}/ca.crt")
    if mirror.docker:
        # Both keys are among those that a running daemon takes up (docker's manual, "Configuration reloading").
        found.append(f"{_decoded(joining(mirror.docker))} | python3 - && systemctl reload docker || true")
    return found


def apt(url: str, root: str = "") -> str:
    """What makes Ubuntu's apt ask this mirror and nobody else; other systems stay as they are.

    Further lists (drivers, docker) get a name that apt does not read: without a way out each would be waited for.
    """
    script = f"""\
. {root}/etc/os-release
[ "$ID" = ubuntu ] || exit 0
cd {root}/etc/apt
for list in sources.list.d/*.list sources.list.d/*.sources; do
    [ ! -e "$list" ] || mv "$list" "$list.off"
done
for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-updates" "$VERSION_CODENAME-security"; do
    echo "deb {url.rstrip("/")} $suite main restricted universe multiverse"
done > sources.list
"""
    return f"{_decoded(script)} | sh"


def joining(told: Mapping[str, Sequence[str]], path: str = "/etc/docker/daemon.json") -> str:
    """A script of Python that adds to docker's configuration, which names the runtime of GPUs where there are some."""
    return f"""\
import json, pathlib
path = pathlib.Path({path!r})
held = json.loads(path.read_text().strip() or "{{}}") if path.exists() else {{}}
for key, value in json.loads({json.dumps(dict(told))!r}).items():
    held[key] = value + [one for one in held.get(key, []) if one not in value]
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(held, indent=2) + "\\n")
"""


def _decoded(text: str) -> str:
    return f"echo {base64.b64encode(text.encode()).decode()} | base64 -d"
