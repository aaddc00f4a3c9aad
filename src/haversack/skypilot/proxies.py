"""Proxies of pods: six variables, and all that must not go through them.

A pod of SkyPilot reaches more than the internet: the head of its cluster by a name below ``.svc.cluster.local``,
the API server of Kubernetes by its service address, and the metadata of its machine.  Programs disagree on
whether names in capitals or small letters count, so both are written, with the same value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from haversack.formats.hosts import is_authority, is_here

ALWAYS = ("localhost", "127.0.0.1", "::1", "169.254.169.254", ".svc", ".cluster.local")
"""What no pod asks a proxy for."""
THROUGH = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
PAST = ("NO_PROXY", "no_proxy")
"""The six variables."""
ENTRY = r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"
ENTRY_SAYS = "a host, a domain that begins with a dot, an address or a network like 10.0.0.0/8"

# RFC 1918, 6598 and 4193.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


def fault(proxy: str) -> tuple[str, str] | None:
    """What is wrong with the URL of a proxy, and what to do; neither repeats what could be a secret in it."""
    nothing = "is no URL of a proxy", "write http://HOST:PORT"
    try:
        parts = urlsplit(proxy)
    except ValueError:
        return nothing
    if "@" in proxy or parts.query or parts.fragment:
        return (
            "holds a user name or a password, and goes into locks, bundles and files",
            "change that password; kubectl create secret generic NAME --from-literal=proxy=URL in the namespace of "
            'the pods, and write proxy_secret = "NAME" instead',
        )
    # The parser drops blanks and line breaks that programs would read.
    if parts.geturl() != proxy or parts.scheme not in {"http", "https"} or parts.path not in {"", "/"}:
        return nothing
    if not is_authority(parts.netloc):
        return nothing
    if is_here(parts.hostname or ""):
        return "is the pod itself to a pod", "write the name by which pods reach the proxy"
    if parts.port is None:
        return "has no port, and programs do not agree on which they take then", "write http://HOST:PORT"
    return None


def is_network(entry: str) -> bool:
    """Whether an entry is an address or a network."""
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


def is_address(entry: str) -> bool:
    """Whether an entry covers addresses of other machines."""
    if not is_network(entry):
        return False
    network = ipaddress.ip_network(entry, strict=False)
    here = network.is_loopback or network.is_link_local
    return not here and not (network.num_addresses == 1 and network.network_address.is_unspecified)


def is_of_cluster(entry: str) -> bool:
    """Whether an entry may cover the API server as pods reach it: clusters have private networks."""
    return is_address(entry) and any(
        network.version == private.version and network.overlaps(private)
        for network in [ipaddress.ip_network(entry, strict=False)]
        for private in _PRIVATE
    )


def covers(entries: Iterable[str], host: str) -> bool:
    """Whether one of these keeps a proxy away from an address, or from a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Programs disagree on whether a domain without a dot before it covers what is below.
        name = host.casefold().removesuffix(".")
        return any(
            name == e.casefold() or (e.startswith(".") and name.endswith(e.casefold())) for e in entries
        )
    return any(address in ipaddress.ip_network(e, strict=False) for e in entries if is_address(e))


def completed(*lists: Sequence[str]) -> tuple[str, ...]:
    """``NO_PROXY`` of what people wrote and of what pods reach, each once, theirs first."""
    return tuple(dict.fromkeys((*(entry for given in lists for entry in given if entry), *ALWAYS)))


def variables(proxy: str | None, secret: str | None, exempt: Sequence[str]) -> list[dict[str, object]]:
    """The environment of a container as Kubernetes lists it.

    The URL is written, or taken from the key ``proxy`` of a Kubernetes secret of this name.
    """
    found: list[dict[str, object]] = []
    for name in THROUGH:
        taken = {"valueFrom": {"secretKeyRef": {"name": secret, "key": "proxy"}}}
        found.append({"name": name, **({"value": proxy} if proxy else taken)})
    found += [{"name": name, "value": ",".join(exempt)} for name in PAST]
    return found


def host_of(url: str) -> str:
    """The host of a URL without its port, as an entry."""
    return re.sub(r"^\[(.*)\]$", r"\1", urlsplit(url).hostname or "")
