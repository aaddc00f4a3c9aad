"""Sockets: connections of HTTP/1.1 over asyncio, one request after the other on each (RFC 9112).

A connection holds no thread and little memory, so that many slow clients cost little.  Bytes of files go
from the page cache to the socket (``sendfile``) where there is no TLS; layers go by way of a copy.  A client
has ten seconds for a head, may be idle for 75 where there is room (:mod:`haversack.serving.room`), and must
take a KiB a second.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from haversack.errors import HaversackError
from haversack.serving import kernel
from haversack.serving.answers import Answer, Passage, head_of, text
from haversack.serving.application import Application
from haversack.serving.remembering import Ready
from haversack.serving.requests import END, HEAD_LIMIT, RefusedError, Request, parse
from haversack.serving.room import Room

_READ = 512 << 10
_BACKLOG = 64 << 10
"""Bytes of further requests that are kept while one is answered, or the client does not read."""
_BLANK = re.compile(rb"[\r\n]*")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a client has: for a head, between requests, and to read the last answer before the end.

    In each span of ``slow`` seconds it must take ``slow`` KiB of an answer; ``drain`` is what answers have
    when the server is ended.
    """

    head: float = 10.0
    idle: float = 75.0
    linger: float = 2.0
    slow: float = 60.0
    drain: float = 30.0


class Server:
    """The connections of one server, and what all of them share.  Its clients may take so many ``descriptors``."""

    def __init__(self, app: Application, descriptors: int, patience: Patience) -> None:
        self.app = app
        self.patience = patience
        self.room: Room[Connection] = Room(descriptors)
        self.connections = self.room.guests
        self.accepted = 0
        self.draining = False
        self.date = b""
        self._loop = asyncio.get_running_loop()
        self._tick()

    def connection(self) -> Connection:
        """A protocol for one connection."""
        return Connection(self)

    def _tick(self) -> None:
        """Every second: the date, and who is too slow."""
        self.date = formatdate(time.time(), usegmt=True).encode()
        now = self._loop.time()
        for connection in list(self.connections):
            connection.judge(now)
        self._ticking = self._loop.call_later(1.0, self._tick)

    async def drain(self) -> None:
        """Let answers that are under way finish, then close everything."""
        self.draining = True
        for connection in list(self.connections):
            connection.retire()
        end = self._loop.time() + self.patience.drain
        while self.connections and self._loop.time() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        self._ticking.cancel()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._app = server.app
        self._room = server.room
        self._loop = server._loop
        self._transport: Any = None
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = self._stopped = self._ended = False
        self._closing_at = 0.0
        self._peer = ""
        self._secure = False
        self._since = 0.0
        """When the state that is being waited for began: no bytes, or not all of a head."""
        self._written = 0
        self._mark, self._marked = 0, 0.0
        self._lent: Passage | None = None

    # What asyncio calls

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        server = self._server
        self._transport = transport
        self._since = self._marked = self._loop.time()
        server.accepted += 1
        if server.draining or not server.room.enter(self):
            transport.abort()
            return
        # Not 0: under TLS, asyncio takes an empty buffer for one that reached it.
        transport.set_write_buffer_limits(1, 0)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if isinstance(name, tuple) else "unix"
        self._secure = transport.get_extra_info("ssl_object") is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what was being answered is not answered further."""
        self._room.leave(self)
        if self._task is not None:
            self._task.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.cancel()

    def pause_writing(self) -> None:
        """The client is slower than we."""
        self._paused = True
        self._mark, self._marked = self._delivered(), self._loop.time()
        self._room.stay(self)

    def resume_writing(self) -> None:
        """All bytes are on their way."""
        self._paused = False
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
        elif self._task is None:
            self._go_on()

    def eof_received(self) -> bool:
        """The client says no more, but may still listen."""
        self._ended = True
        return not self._secure and (self._task is not None or self._paused)

    def data_received(self, data: bytes) -> None:
        """Requests, or parts of one."""
        if self._closing_at:
            return
        if self._task is None and not self._paused and not self._buffer and self._at_once(data):
            return
        if not self._buffer:
            self._since = self._loop.time()
        self._buffer += data
        self._advance()
        self._wait()
        if len(self._buffer) > _BACKLOG and not self._stopped:
            self._stopped = True
            self._transport.pause_reading()

    # Requests

    def _at_once(self, head: bytes) -> bool:
        """Answer from the memory, if these very bytes were asked before; whether it could."""
        ready = self._app.memory.get(head)
        if ready is None or not self._app.fresh() or self._server.draining:
            return False
        begun = time.perf_counter()
        if ready.until < self._loop.time():
            return False
        data = ready.sent(self._server.date)
        self._since = self._loop.time()
        self._written += len(data)
        self._transport.write(data)
        if not self._paused:
            self._room.rest(self)
        self._app.log_ready(self._peer, ready, time.perf_counter() - begun)
        return True

    def _advance(self) -> None:
        """Take the next request out of the buffer, if there is one and nothing is in its way."""
        while self._task is None and not self._paused and not self._closing_at and self._buffer:
            buffer = self._buffer
            if blank := _BLANK.match(buffer):
                del buffer[: blank.end()]
            end = buffer.find(END, 0, HEAD_LIMIT)
            if end < 0:
                if len(buffer) >= HEAD_LIMIT:
                    self._refuse(RefusedError(431, "the head is too long"))
                elif b"\n\n" in buffer:
                    self._refuse(RefusedError(400, "a line ends with a line feed alone"))
                elif buffer and not buffer[:1].isalpha():
                    # TLS, mostly: podman and skopeo try that first, and would wait for the time-out of the head.
                    self._refuse(RefusedError(400, "no method begins like this; TLS is not spoken here"))
                return
            head = bytes(buffer[: end + 4])
            # The beginning of a bytearray goes away without a copy of the rest.
            del buffer[: end + 4]
            self._since = self._loop.time()
            if self._stopped and len(buffer) <= _BACKLOG:
                self._stopped = False
                self._transport.resume_reading()
            if self._at_once(head):
                continue
            try:
                request = parse(head)
            except RefusedError as problem:
                self._refuse(problem)
                return
            if not self._room.begin(self):
                self._refuse(RefusedError(503, "too many requests are being answered"))
                return
            self._task = self._loop.create_task(self._give(request, head))

    def _refuse(self, problem: RefusedError) -> None:
        """Say what is wrong with a request, and part."""
        answer = text(problem.status, problem.reason)
        self._buffer.clear()
        self._room.stay(self)
        self._task = self._loop.create_task(self._send(None, answer, False, time.perf_counter()))
        self._task.add_done_callback(self._done)

    async def _give(self, request: Request, head: bytes) -> None:
        begun = time.perf_counter()
        task = self._task
        assert task is not None
        task.add_done_callback(self._done)
        # What is changed while the answer is made may be what it was made of.
        generation = self._app.memory.generation
        try:
            answer = await self._app.answer(request)
        except HaversackError as problem:
            answer = text(500, problem.message)
            answer.note = str(problem)
        keep = request.keep and not request.body and not self._server.draining
        if answer.lasting and keep and request.method == "GET" and answer.passage is None:
            self._app.memory.put(head, Ready(request, answer), generation)
        await self._send(request, answer, keep, begun)

    async def _send(self, request: Request | None, answer: Answer, keep: bool, begun: float) -> None:
        """Send an answer, and close if it is the last."""
        sent = 0
        passage = answer.passage
        try:
            head = head_of(answer, self._server.date, keep=keep)
            silent = request is not None and request.method == "HEAD"
            body = b"" if silent or passage else answer.body
            self._written += len(head) + len(body)
            self._transport.write(head + body)
            sent = len(body)
            await self._flushed()
            if passage and not silent:
                self._lent = passage
                position = passage.start
                while position < passage.stop:
                    limit = await passage.released(position)
                    await self._pass(passage.fileno(), position, limit, worked=answer.worked)
                    sent += limit - position
                    position = limit
        except (HaversackError, OSError) as problem:
            # The length was told: an end before it is what says that something is wrong.
            answer.note = answer.note or str(problem)
            keep = False
            self._transport.abort()
        finally:
            self._lent = None
            if passage:
                passage.close()
            self._app.log(self._peer, request, answer, sent, time.perf_counter() - begun)
        if not keep:
            self._part()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._room.end(self)
        self._since = self._loop.time()
        if task.cancelled() or self._transport.is_closing():
            self._wait()
            return
        if problem := task.exception():
            self._transport.abort()
            raise problem
        if self._closing_at or self._server.draining:
            self._part()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next request, or end where the client said that there is none."""
        self._advance()
        if self._ended and self._task is None and not self._paused:
            self._transport.close()
        self._wait()

    def _wait(self) -> None:
        """Say how long ago this client was of use, where it is not told anything."""
        if self._task is not None or self._paused:
            return
        if self._buffer or self._closing_at or not self._written or self._transport.is_closing():
            self._room.wait(self)
        else:
            self._room.rest(self)

    # Bytes

    def _delivered(self) -> int:
        # A TLS transport that is closed knows no size any more.
        waiting = 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()
        return self._written - int(waiting)

    async def _flushed(self) -> None:
        """Wait until every byte written is on its way."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client went away")
        if self._paused:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    async def _pass(self, file: int, start: int, stop: int, *, worked: bool) -> None:
        """Send bytes of a file."""
        self._mark, self._marked = self._delivered(), self._loop.time()
        if not self._secure and hasattr(os, "sendfile"):
            out = self._transport.get_extra_info("socket").fileno()
            portion = kernel.copied if worked else kernel.lent
            await kernel.send(out, file, start, stop, self._passed, portion)
            return
        while start < stop:
            size = min(_READ, stop - start)
            data = await self._loop.run_in_executor(None, os.pread, file, size, start)
            if not data:
                raise ConnectionAbortedError("the file ended early")
            self._written += len(data)
            self._transport.write(data)
            start += len(data)
            await self._flushed()

    def _passed(self, count: int) -> None:
        self._written += count

    # Ends

    def judge(self, now: float) -> None:
        """Let go of a client that is too slow; called every second."""
        patience = self._server.patience
        if self._paused or self._lent:
            if now - self._marked < patience.slow:
                return
            delivered = self._delivered()
            if delivered - self._mark < patience.slow * 1024:
                self._transport.abort()
            self._mark, self._marked = delivered, now
        elif self._task is not None:
            return
        elif self._closing_at:
            if now > self._closing_at:
                self._transport.abort()
        elif self._buffer and now - self._since > patience.head:
            self._refuse(RefusedError(408, "the head did not arrive in time"))
        elif now - self._since > (patience.idle if self._written else patience.head):
            self._transport.close()

    def retire(self) -> None:
        """Close if nothing is being answered; otherwise after the answer."""
        if self._task is None and not self._paused:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _part(self) -> None:
        """Close, once the client had a chance to read what was said: what it still sends is not looked at.

        To close while its bytes arrive would reset the connection, and the answer would be lost
        (RFC 9112 §9.6).
        """
        if self._transport.is_closing():
            return
        if self._secure or self._ended:
            self._transport.close()
            return
        self._closing_at = self._loop.time() + self._server.patience.linger
        if self._stopped:
            self._stopped = False
            self._transport.resume_reading()
        self._transport.write_eof()
        self._wait()
