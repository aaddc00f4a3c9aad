"""TLS: clients from the moment they are accepted, so that one that does not agree on TLS takes room like any other.

asyncio's own server tells of a connection after TLS is agreed on; until then nobody would count it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from haversack.serving.http import Connection, Server

AT_ONCE = 32
"""Connections that are accepted before those that were before them are looked at."""
_AGAIN = 1.0
"""Seconds after which it is tried again, where no descriptor was left."""


class Door:
    """A socket that is listened at, whose clients speak TLS."""

    def __init__(self, listening: socket.socket, server: Server, context: ssl.SSLContext) -> None:
        self._listening, self._server, self._context = listening, server, context
        self._loop = asyncio.get_running_loop()
        self._open()

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _open(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                one, _name = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_AGAIN, self._open)
                return
            one.setblocking(False)
            _Greeting(one, self._server, self._context)


class _Greeted(Connection):
    """A connection that is in the room before it is made."""

    made = False

    def expect(self, greeting: _Greeting) -> None:
        """Begin to wait for TLS, if there is room."""
        self._transport, self._since = greeting, self._loop.time()
        if self._server.draining or not self._room.enter(self):
            greeting.close()

    def connection_made(self, transport: Any) -> None:
        """TLS is agreed on."""
        self.made = True
        super().connection_made(transport)


class _Greeting:
    """What a connection has for a transport until TLS is agreed on: it can be ended."""

    def __init__(self, one: socket.socket, server: Server, context: ssl.SSLContext) -> None:
        self._socket, self._server, self._context = one, server, context
        self._begun = False
        self._connection = _Greeted(server)
        # The room has the connection, and that has this as its transport.
        self._task = asyncio.get_running_loop().create_task(self._greet())
        self._task.add_done_callback(self._ended)
        self._connection.expect(self)

    async def _greet(self) -> None:
        self._begun = True
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._connection,
            self._socket,
            ssl=self._context,
            ssl_handshake_timeout=self._server.patience.head,
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # What went wrong is the client's: it speaks no TLS, or left.
            task.exception()
        if not self._connection.made:
            self._connection.connection_lost(None)
        if not self._begun:
            self._socket.close()

    def close(self) -> None:
        """Close now."""
        self._task.cancel()

    abort = close

    def is_closing(self) -> bool:
        """Whether it was ended."""
        return self._task.cancelling() > 0
