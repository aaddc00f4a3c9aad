"""What every unit is denied, and how one that fails comes back (systemd.exec(5), systemd.service(5))."""

from __future__ import annotations

from collections.abc import Mapping

from haversack.services.terms import Term

HARDENED: Mapping[str, Term | tuple[Term, ...]] = {
    "UMask": "0077",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    # An environment below /home, /root or /run/user is not found.
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectProc": "invisible",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "RemoveIPC": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
    "LogRateLimitIntervalSec": "30s",
    "LogRateLimitBurst": 10000,
}
"""For what runs other programs: its exposure by systemd-analyze is below 2.0."""

LOOKING: Mapping[str, Term | tuple[Term, ...]] = {
    **HARDENED,
    "MemoryDenyWriteExecute": "yes",
    "ProcSubset": "pid",
    "SystemCallFilter": ("@system-service", "~@privileged @resources"),
}
"""For what only looks and answers."""

RESTARTED: Mapping[str, Term] = {
    "Restart": "on-failure",
    "RestartSec": 5,
    # From systemd 254; older ones say that they ignore it, and wait 5 s each time.
    "RestartSteps": 6,
    "RestartMaxDelaySec": "5min",
}
"""After a failure it comes back, later and later, and never gives up."""

PERSISTING: Mapping[str, Term] = {"StartLimitIntervalSec": 0}
"""The part of :data:`RESTARTED` that stands in ``[Unit]``."""
