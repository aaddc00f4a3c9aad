"""Who listens at the ports of this machine, as the kernel tells in /proc (proc(5)); no port is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_LISTENING = "0A"  # include/net/tcp_states.h
_UNIT = re.compile(r"/([^/\n]+\.service)(?:/|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that somebody listens at; ``inode`` is its number among the files of processes."""

    address: IPv4Address | IPv6Address
    port: int
    inode: str

    def is_in_the_way_of(self, host: str | None) -> bool:
        """Whether a program cannot listen at this port of ``host`` beside it; a name may be any address."""
        try:
            wanted = ip_address(host or "")
        except ValueError:
            return True
        mine = self.address
        # A socket at all addresses of version 6 takes those of version 4 too (ipv6(7)).
        for one, other in ((mine, wanted), (wanted, mine)):
            if one.is_unspecified and (one.version == 6 or other.version == 4):
                return True
        return mine == wanted


def parsed(tables: Sequence[str]) -> list[Listener]:
    """Those in the texts of ``/proc/net/tcp`` and ``tcp6``."""
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    found = []
    for row in rows:
        if len(row) > 9 and row[3] == _LISTENING:
            host, _, port = row[1].rpartition(":")
            found.append(Listener(_address(host), int(port, 16), row[9]))
    return found


def listeners() -> list[Listener]:
    """Those of this machine."""
    return parsed([_text(Path("/proc/net", table)) for table in ("tcp", "tcp6")])


def holders(sockets: Iterable[Listener]) -> set[str]:
    """The units of systemd that have these sockets, or the programs where there is no unit; as far as it can be seen."""
    wanted = {f"socket:[{one.inode}]" for one in sockets}
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not any(str(file.readlink()) in wanted for file in (process / "fd").iterdir()):
                continue
        except OSError:
            continue  # ended meanwhile, or is somebody else's
        unit = _UNIT.search(_text(process / "cgroup"))
        found.add(unit[1] if unit else f"{_text(process / 'comm').strip()} ({process.name})")
    return found


def _address(told: str) -> IPv4Address | IPv6Address:
    """An address as words of 32 bits in the machine's order."""
    words = [int(told[start : start + 8], 16) for start in range(0, len(told), 8)]
    address = ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
