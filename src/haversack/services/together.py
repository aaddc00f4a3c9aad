"""What services of one machine want of each other, and of the SkyPilot that the site declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any
from urllib.parse import urlsplit

from packaging.version import Version

from haversack.formats import hosts
from haversack.model.finding import Finding
from haversack.services.description import Service
from haversack.services.machine import listens
from haversack.services.terms import On, both
from haversack.services.values import Values

# Its API server has what data/skypilot/server.py asks for since then.
_OLDEST = "0.10.0"
_SUBJECT = "platform.systemd"


def shared(services: Mapping[str, tuple[Service, Values]]) -> Iterator[Finding]:
    """Ports that two services of one machine would both listen at, and folders of one in or around another's."""
    taken: dict[int, str] = {}
    for name, (service, found) in services.items():
        for path in listens(service, found):
            port = found.options[path]
            other = taken.setdefault(port, f"{name}.{path}")
            if not other.startswith(f"{name}."):
                said = f"is {port}, and so is {other}: two servers cannot share a port"
                yield _wrong(f"{_SUBJECT}.{name}.{path}", said, "give one of them another port")
    running = [(name, *one) for name, one in services.items() if one[1].test(On("enable"))]
    for (mine, ours, found), (theirs, others, held) in combinations(running, 2):
        for own, their in product(ours.folders, others.folders):
            one, two = f"{found.options[own]}/", f"{held.options[their]}/"
            if one.startswith(two) or two.startswith(one):
                said = (
                    f"is {found.options[own]}, in or around {theirs}.{their}, which is {held.options[their]}"
                )
                yield _wrong(f"{_SUBJECT}.{mine}.{own}", said, "name a folder beside it")


def fitting(found: Values, base: Mapping[str, Any]) -> Iterator[Finding]:
    """What of ``[platform.skypilot]``, which brings what the service runs, does not fit to the service."""
    if not _serves(found):
        return
    if Version(base["version"]) < Version(_OLDEST):
        said = f"is {base['version']}, whose API server cannot run as a service"
        yield _wrong("platform.skypilot.version", said, f"take SkyPilot {_OLDEST} or later")
    told = urlsplit(base.get("endpoint") or "")
    port = found.options["webUI.port"]
    theirs = re.search(r":([0-9]+)$", told.netloc)
    same = int(theirs[1] if theirs else 80) == port
    if told.scheme == "http" and hosts.is_here(told.hostname or "") and not same:
        said = f"is http://{told.netloc}, and the server of this machine listens at port {port}"
        remedy = f"write the port {port}, or the other in [{_SUBJECT}.skypilot.webUI]"
        yield _wrong("platform.skypilot.endpoint", said, remedy, blocking=False)


def unused(found: Values, base: Mapping[str, Any]) -> Iterator[Finding]:
    """Credentials of clouds for which the environment that ``[platform.skypilot]`` adds has no code."""
    clouds = found.options["cloudCredentials"] if _serves(found) else {}
    for cloud in sorted(name for name in clouds if base.get(name) is None):
        said = "are used by nothing: [platform.skypilot] brings code for the clouds alone that have a table in it"
        remedy = f"declare an environment [env.skypilot] with skypilot[{cloud}], or leave them out"
        if cloud == "aws":
            remedy = "add [platform.skypilot.aws], or leave them out"
        yield _wrong(f"{_SUBJECT}.skypilot.cloudCredentials.{cloud}", said, remedy, blocking=False)


def _serves(found: Values) -> bool:
    """Whether an API server runs here."""
    return found.test(both(On("enable"), On("systemdServices"), On("enableWebUI")))


def _wrong(subject: str, said: str, remedy: str, *, blocking: bool = True) -> Finding:
    return Finding("platform-setting", subject, said, remedy, blocking=blocking)
