"""Bytes of files to sockets without a stop in this process (``sendfile``)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_SLICE = 4 << 20
"""Bytes that one call may send, so that no client keeps the others waiting."""


async def sendfile(
    connection: int, file: int, start: int, stop: int, on_bytes: Callable[[int], None]
) -> None:
    """Send the bytes of a file from ``start`` to ``stop``; ``on_bytes`` is told of each portion.

    asyncio's own does not say how far it is, and lets nobody wait for a socket that a transport has; a second
    descriptor of the socket may be waited for.  Raises ``OSError`` when the client goes, or the file ends early.
    """
    loop = asyncio.get_running_loop()
    out = os.dup(connection)
    done = loop.create_future()
    position = start

    def push() -> None:
        nonlocal position
        try:
            count = os.sendfile(out, file, position, min(_SLICE, stop - position))
        except BlockingIOError:
            return
        except OSError as problem:
            _settle(done, problem)
            return
        position += count
        on_bytes(count)
        if not count:
            _settle(done, ConnectionAbortedError("the file ended early"))
        elif position >= stop:
            _settle(done, None)

    loop.add_writer(out, push)
    try:
        await done
    finally:
        loop.remove_writer(out)
        os.close(out)


def _settle(done: asyncio.Future[None], problem: OSError | None) -> None:
    if done.done():
        return
    if problem:
        done.set_exception(problem)
    else:
        done.set_result(None)
