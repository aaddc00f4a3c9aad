"""Hosts and ports as they stand in URLs (RFC 3986, 3.2.2 and 3.2.3), and which hosts are the machine itself."""

from __future__ import annotations

import ipaddress
import re

NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
"""A name, or an address of IPv4; labels with an underscore are found on real machines."""
_AT = re.compile(rf"(?P<host>{NAME}|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_OURSELVES = {"localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4", "localhost6",
              "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}  # fmt: skip
"""What /etc/hosts of Debian and of Red Hat calls the machine itself."""
_PART = re.compile(r"0[xX][0-9A-Fa-f]*|0[0-7]*|[1-9][0-9]*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_authority(netloc: str) -> bool:
    """Whether this is a host with or without a port that there can be; no user name, no password."""
    found = _AT.fullmatch(netloc)
    if found is None or (netloc.startswith("[") and number(found["host"]) is None):
        return False
    return found["port"] is None or 0 < int(found["port"]) < 1 << 16


def number(host: str) -> Address | None:
    """The address that a host is, ``None`` for a name.

    As programs read it that ask ``inet_aton`` (POSIX): one to four parts, each decimal, octal or hexadecimal, the
    last of which fills what is left.  ``127.1``, ``2130706433`` and ``0x7f.1`` are all ``127.0.0.1``; an address of
    IPv4 in one of IPv6 (``::ffff:127.0.0.1``) is that of IPv4.
    """
    plain = host.removeprefix("[").removesuffix("]")
    try:
        found = ipaddress.ip_address(plain)
    except ValueError:
        return _loose(plain.removesuffix("."))
    return getattr(found, "ipv4_mapped", None) or found


def _loose(host: str) -> ipaddress.IPv4Address | None:
    parts = host.split(".")
    if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
        return None
    try:
        values = [int(p, 16 if p[:2] in {"0x", "0X"} else 8 if p.startswith("0") else 10) for p in parts]
    except ValueError:
        return None
    *first, last = values
    if any(value > 255 for value in first) or last >= 1 << 8 * (5 - len(parts)):
        return None
    return ipaddress.IPv4Address(sum(value << 8 * (3 - at) for at, value in enumerate(first)) + last)


def is_here(host: str) -> bool:
    """Whether a host means the machine that asks, whichever that is (RFC 6761, 6.3), or none."""
    address = number(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    name = host.removesuffix(".").casefold()
    return not name or name in _OURSELVES or name.endswith(".localhost")
