"""Which keys SkyPilot's configuration may have, as far as its schema is closed.

Read from ``sky.utils.schemas.get_config_schema()`` of 0.14.1; a test holds the lists to the real package.  What is open
there (``kubernetes``, ``slurm``, ``jobs``, ``serve``) is the server's to judge.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from packaging.version import Version

from haversack.skypilot import versions

READ_FROM = "0.14.1"
"""The version whose schema the lists were read from."""
TOP = frozenset(
    [
        "active_workspace",
        "admin_policy",
        "allowed_clouds",
        "api_server",
        "aws",
        "azure",
        "daemons",
        "dashboard",
        "data",
        "db",
        "docker",
        "gcp",
        "jobs",
        "kubernetes",
        "logs",
        "metrics",
        "nebius",
        "nvidia_gpus",
        "oci",
        "plugins",
        "provision",
        "rbac",
        "serve",
        "slurm",
        "ssh",
        "vast",
        "workspace",
        "workspace_config",
        "workspaces",
    ]
)
CLOSED: Mapping[str, frozenset[str]] = {
    "api_server": frozenset(
        [
            "cluster_debug_event_retention_hours",
            "cluster_event_retention_hours",
            "cluster_terminal_event_retention_hours",
            "daemon_log_max_bytes",
            "endpoint",
            "launch_attempt_retention_hours",
            "logs_retention_hours",
            "requests_retention_hours",
            "service_account_token",
        ]
    ),
    "aws": frozenset(
        [
            "capabilities",
            "disk_encrypted",
            "enforce_tags",
            "labels",
            "post_provision_runcmd",
            "prioritize_reservations",
            "remote_identity",
            "security_group_name",
            "specific_reservations",
            "ssh_proxy_command",
            "ssh_user",
            "subnet_names",
            "use_internal_ips",
            "use_ssm",
            "vpc_name",
            "vpc_names",
        ]
    ),
    "provision": frozenset(("install_conda", "ssh_timeout")),
}
"""The keys of tables that have no others."""
_INSTEAD = {
    "cloud": "write allowed_clouds, a list, and the region as cluster.defaultRegion",
    "spot": "ask for spot machines in a task: resources: {use_spot: true}",
    "cluster": "write cluster.defaultInstanceType and cluster.defaultRegion beside config",
    "resources": "write it in tasks",
}


def refused(content: Mapping[str, Any], version: str | None) -> Iterator[tuple[str, str, str, bool]]:
    """What SkyPilot refuses of a configuration: the key, what is wrong, what to do, and whether that is certain.

    ``version`` is that of the site, ``None`` where it is not known.
    """
    certain = version is None or Version(version).release[:2] == Version(READ_FROM).release[:2]
    for key in sorted(content.keys() - TOP):
        yield key, f"{_NO}{READ_FROM}", _INSTEAD.get(key) or _near(key, TOP), certain
    for table, keys in CLOSED.items():
        inner = content.get(table)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            yield table, "is no table", f"write [{table}] with keys of its own", True
            continue
        for key in sorted(inner.keys() - keys):
            yield f"{table}.{key}", f"{_NO}{READ_FROM}", _near(key, keys), certain
    if version is not None:
        written = [name for name in versions.OPTIONS if _has(content, name)]
        for name, first in versions.lacking(version, written).items():
            yield name, f"is not known to SkyPilot {version}", f"take SkyPilot {first} or later", True


_NO = "is no key of SkyPilot's configuration in "


def _has(content: Mapping[str, Any], name: str) -> bool:
    table, _, key = name.rpartition(".")
    inner = content.get(table, {}) if table else content
    return isinstance(inner, Mapping) and key in inner


def _near(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
