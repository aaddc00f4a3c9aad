"""Room: how many clients there can be by the files that may be open, and who goes where there is no more.

A connection takes one descriptor, and three more while it is answered: the file of a blob, that file as it is
hashed, and the socket once more (:mod:`haversack.serving.kernel`).  Where a new one does not fit, the one that
has been idle between two requests the longest goes; then the one that has waited the longest with no request,
or half a head of one.  One that is being answered never goes: then the new one is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

_ANSWER = 3
"""Descriptors that an answer takes beside its connection."""
Loss: TypeAlias = Literal["idle", "head", "refused"]
"""Who went, or did not come in: an idle client, one whose head was awaited, one whom there was no room for."""


class Guest(Protocol):
    """A connection, as far as it takes room."""

    def abort(self) -> None:
        """Close now."""
        ...


_Guest = TypeVar("_Guest", bound=Guest)


class Room(Generic[_Guest]):
    """The descriptors for the clients of one server, and who has them.

    Nothing here takes longer where there are many.
    """

    def __init__(self, descriptors: int) -> None:
        self._free = descriptors
        self.on_loss: Callable[[Loss], None] = lambda _: None
        """Called for each connection, or request, that there was no room for."""
        self.guests: set[_Guest] = set()
        """All who are in."""
        self._idle: OrderedDict[_Guest, None] = OrderedDict()
        self._waiting: OrderedDict[_Guest, None] = OrderedDict()
        self._answering: set[_Guest] = set()

    def enter(self, guest: _Guest) -> bool:
        """Let somebody in, who has said nothing yet and may be in already; whether there is room."""
        if guest in self.guests:
            return True
        if not self._make(1):
            return False
        self._free -= 1
        self.guests.add(guest)
        self._waiting[guest] = None
        return True

    def rest(self, guest: _Guest) -> None:
        """Somebody was answered, and has not asked again."""
        if guest in self.guests:
            self._waiting.pop(guest, None)
            self._idle[guest] = None
            self._idle.move_to_end(guest)

    def wait(self, guest: _Guest) -> None:
        """Somebody began to ask, or has only its last answer to read."""
        if guest in self.guests:
            self._idle.pop(guest, None)
            self._waiting[guest] = None

    def stay(self, guest: _Guest) -> None:
        """Somebody is told something, for which no file is needed, and may not be sent away meanwhile."""
        self._idle.pop(guest, None)
        self._waiting.pop(guest, None)

    def begin(self, guest: _Guest) -> bool:
        """Somebody gets an answer, until :meth:`end`; whether there is room for that."""
        self.stay(guest)
        if not self._make(_ANSWER):
            return False
        self._free -= _ANSWER
        self._answering.add(guest)
        return True

    def end(self, guest: _Guest) -> None:
        """An answer has ended, if there was one."""
        if guest in self._answering:
            self._answering.remove(guest)
            self._free += _ANSWER

    def leave(self, guest: _Guest) -> None:
        """Somebody has gone."""
        self.stay(guest)
        self._out(guest)

    def _out(self, guest: _Guest) -> None:
        # Once for each: who is sent away goes a little later.
        if guest in self.guests:
            self.guests.remove(guest)
            self._free += 1

    def _make(self, wanted: int) -> bool:
        while self._free < wanted:
            if self._idle:
                guest, _ = self._idle.popitem(last=False)
                loss: Loss = "idle"
            elif self._waiting:
                guest, _ = self._waiting.popitem(last=False)
                loss = "head"
            else:
                self.on_loss("refused")
                return False
            self.on_loss(loss)
            # Its descriptor is closed in the next turn of the event loop: that is soon enough.
            guest.abort()
            self._out(guest)
        return True
