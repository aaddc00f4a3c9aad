"""What connections ask for their answers."""

from __future__ import annotations

from typing import Protocol

from haversack.serving.answers import Answer
from haversack.serving.remembering import Memory, Ready
from haversack.serving.requests import Request


class Application(Protocol):
    """What gives answers."""

    memory: Memory

    async def answer(self, request: Request) -> Answer:
        """The answer to a request; raises nothing but what is a defect."""
        ...

    def log(self, peer: str, request: Request | None, answer: Answer, sent: int, seconds: float) -> None:
        """Record an answer that was given, as far as ``sent`` bytes of its body."""
        ...

    def log_ready(self, peer: str, ready: Ready, seconds: float) -> None:
        """Record an answer from the memory."""
        ...

    def fresh(self) -> bool:
        """Whether what the memory holds is still so; called before each look into it."""
        ...
