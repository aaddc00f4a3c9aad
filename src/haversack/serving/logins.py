"""Passwords seen first, tried aside: nobody who needs no trying waits for those who guess.

A password takes a thread some 50 ms (scrypt), and whoever guesses sends thousands.  They are tried by two
threads of their own; behind those waits a bounded number, and who comes after that is sent away with 503.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from haversack.serving.auth import DeniedError, Login, Rules

_THREADS = 2
_WAITING = 64
"""Different logins that are tried or wait for that: with 50 ms for each, less than two seconds."""


class Logins:
    """Who asks, by the rules of the moment."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "login")
        self._tried: dict[tuple[Rules, str], asyncio.Future[Login]] = {}

    async def login(self, rules: Rules, header: str) -> Login:
        """See :meth:`haversack.serving.auth.Rules.login`; raises ``DeniedError`` with 503 where too many wait."""
        if rules.remembers(header):
            return rules.login(header)
        key = (rules, header)
        future = self._tried.get(key)
        if future is None:
            if len(self._tried) >= _WAITING:
                raise DeniedError(503, "too many logins are being tried; try again")
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, rules.login, header)
            self._tried[key] = future
            future.add_done_callback(lambda done: self._forget(key, done))
        # Many machines log in with the same password at once: it is tried for all of them, whoever goes away.
        return await asyncio.shield(future)

    def _forget(self, key: tuple[Rules, str], done: asyncio.Future[Login]) -> None:
        del self._tried[key]
        if not done.cancelled():
            done.exception()

    def close(self) -> None:
        """End the threads; what waits is not tried."""
        self._pool.shutdown(wait=False, cancel_futures=True)
