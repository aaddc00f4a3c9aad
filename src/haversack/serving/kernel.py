"""Bytes of files to sockets, without a copy in this process (``sendfile``) or by way of one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_SLICE = 4 << 20
"""Bytes that one call may send, so that no client keeps the others waiting."""
_COPY = memoryview(bytearray(256 << 10))
"""What all connections of the event loop share for copying: small enough to stay in a processor's cache."""


def lent(out: int, file: int, start: int, stop: int) -> int:
    """Let the kernel send some bytes of a file as they lie in its memory: the cheapest for the server."""
    return os.sendfile(out, file, start, min(_SLICE, stop - start))


def copied(out: int, file: int, start: int, stop: int) -> int:
    """Send some bytes of a file by way of our memory.

    The client finds them in the processor's cache, where ``lent`` ones come from main memory while it reads: faster in
    all where the client has the most to do (bench/RESULTS.md).  What the socket does not take is read again.
    """
    count = os.preadv(file, [_COPY[: stop - start]], start)
    return os.write(out, _COPY[:count]) if count else 0


async def send(
    connection: int,
    file: int,
    start: int,
    stop: int,
    on_bytes: Callable[[int], None],
    portion: Callable[[int, int, int, int], int],
) -> None:
    """Send the bytes of a file from ``start`` to ``stop`` by portions; ``on_bytes`` is told of each.

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
            count = portion(out, file, position, stop)
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
