"""Run a program where there is no network: ``python -I -S cage.py PROGRAM ARGUMENT…``

A new network namespace with only loopback (``unshare(2)``, as root or in a user namespace of its own);
before the program starts, the cage proves that it is closed: a dial to TEST-NET-1 (RFC 5737) must fail at
once with "network is unreachable".  A time-out would prove nothing.  Standard library only and no import
of haversack: it starts in a bare interpreter.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from pathlib import Path

OPEN = 97
"""Exit code when the cage could not be closed."""
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def close() -> None:
    """Take the network away from this process.  Raises ``OSError`` with the reason."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"no network namespaces on {sys.platform}")
    import fcntl

    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEWNET):
        if libc.unshare(_NEWUSER | _NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"unshare: {os.strerror(number)}")
        # user_namespaces(7): the same ids inside, and setgroups given up before gid_map is written.
        for name, text in (
            ("uid_map", f"{user} {user} 1"),
            ("setgroups", "deny"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path("/proc/self", name).write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def prove() -> None:
    """Raise ``OSError`` unless a dial out fails as it does where there is no network."""
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=2).close()
    except OSError as problem:
        if problem.errno == errno.ENETUNREACH:
            return
        raise OSError(errno.ENOTUNIQ, f"the cage is not closed: a dial ended with {problem}") from problem
    raise OSError(errno.ENOTUNIQ, "the cage is open: a dial succeeded")


if __name__ == "__main__":
    try:
        close()
        prove()
    except OSError as reason:
        sys.stderr.write(f"cage: {reason.strerror or reason}\n")
        sys.exit(OPEN)
    if len(sys.argv) > 1:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
