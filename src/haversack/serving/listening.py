"""Where a server listens: addresses of the network, names in the file system, sockets of systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from haversack.errors import UsageError

BACKLOG = 4096


def listening(address: str) -> socket.socket:
    """A socket that listens at ``HOST:PORT``, ``[ADDRESS]:PORT`` or ``unix:PATH``.

    Raises ``UsageError`` where that cannot be.
    """
    try:
        return _bound(address)
    except (OSError, ValueError, OverflowError) as problem:
        told = getattr(problem, "strerror", None) or str(problem)
        raise UsageError(
            f"cannot be listened at: {told}", where=address, remedy="give another --listen"
        ) from problem


def inherited() -> list[socket.socket]:
    """The sockets that systemd opened for this process (sd_listen_fds(3)), if it did."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = [socket.socket(fileno=3 + n) for n in range(int(os.environ.get("LISTEN_FDS", "0")))]
    for one in found:
        one.setblocking(False)
    return found


def url_of(one: socket.socket, secure: bool) -> str:
    """The URL of a listening socket."""
    name = one.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http{'s' * secure}://{host}:{name[1]}/"


def drop_name(one: socket.socket) -> None:
    """Remove the name that a socket has in the file system, if it has one there."""
    name = one.getsockname()
    if isinstance(name, str) and name.startswith("/"):
        Path(name).unlink(missing_ok=True)


def _bound(address: str) -> socket.socket:
    if address.startswith("unix:"):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = str(Path(address.removeprefix("unix:")).absolute())
        _drop_stale(path)
        listening.bind(path)
    else:
        host, mark, port = address.rpartition(":")
        if not mark or not port.isdigit() or int(port) > 65535:
            raise ValueError("an address is HOST:PORT, [ADDRESS]:PORT or unix:PATH")
        host = host.removeprefix("[").removesuffix("]")
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def _drop_stale(path: str) -> None:
    """Remove the socket of a server that is gone; one that answers stays, and the name is taken then."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        Path(path).unlink(missing_ok=True)
    except OSError:
        pass
    finally:
        probe.close()
