"""Answers that were given before, ready to be given again to whoever asks in the same words.

Clients ask for an index page with the same bytes each time, and between two changes of the store the same
bytes have the same answer.  So the whole head of a request is the key, its login included.
"""

from __future__ import annotations

from collections import OrderedDict

from haversack.serving.answers import Answer, head_of
from haversack.serving.requests import Request

CAPACITY = 64 << 20
"""Bytes of answers that are kept."""
_DATE = b"\x00date\x00"
_LARGEST = 8 << 20


class Ready:
    """An answer as bytes; ``request`` and ``answer`` are kept for the log."""

    __slots__ = ("_after", "_before", "_date", "_whole", "answer", "logged", "request", "size", "until")

    def __init__(self, request: Request, answer: Answer) -> None:
        self.request = request
        self.answer = answer
        self.until = answer.until
        before, _, after = head_of(answer, _DATE, keep=True).partition(_DATE)
        self._before, self._after = before, after + answer.body
        self.size = len(before) + len(self._after) + 2048
        self._date = self._whole = b""
        self.logged: object = None
        """What the log has made of it."""

    def sent(self, date: bytes) -> bytes:
        """The whole answer with that date."""
        if self._date is not date:
            self._date, self._whole = date, self._before + date + self._after
        return self._whole


class Memory:
    """Ready answers by the bytes of the request, those least lately used forgotten first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._held: OrderedDict[bytes, Ready] = OrderedDict()
        self.size = 0
        self.generation = 0
        """How often everything was forgotten: an answer that was begun before that is one of before."""

    def get(self, head: bytes) -> Ready | None:
        """The answer to these bytes."""
        ready = self._held.get(head)
        if ready is not None:
            self._held.move_to_end(head)
        return ready

    def put(self, head: bytes, ready: Ready, generation: int) -> None:
        """Keep an answer that was begun in that generation, if that is still the one, and it is not too large."""
        # The bytes are there twice: with a date, and without.
        size = 2 * ready.size
        if generation != self.generation or size > min(_LARGEST, self._capacity) or head in self._held:
            return
        self._held[head] = ready
        self.size += size
        while self.size > self._capacity:
            _, old = self._held.popitem(last=False)
            self.size -= 2 * old.size

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.size = 0
        self.generation += 1
