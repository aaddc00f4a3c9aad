"""One writer in a bucket, on servers that know no conditions.

``haversack/locks/<name>/<nonce>`` is a lease: an object of its own for each who asks.  Whoever wants to write
puts one and lists them: alone, it holds the lease; with another live one beside, it takes its own away again.
Both may lose, and try again; both cannot win, since the later of two listings shows both.  That needs
listings that show what was put (Amazon's do since 2020; MinIO's and Ceph's always did) and nothing else:
``If-None-Match`` is ignored in silence by some servers.

A live lease is put anew every 30 seconds.  One that was not for five minutes is stale, by the server's own
clock: its ``LastModified`` against that of the object just put.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from haversack.errors import HaversackError, StoreError
from haversack.ports.ledger import actor
from haversack.ports.s3client import explained

if TYPE_CHECKING:
    from haversack.ports.s3client import Client

FOLDER = "haversack/locks"
STALE = timedelta(minutes=5)
# A holder that was away longer gives up by itself, before anybody else could think it gone.
_DOUBTFUL = timedelta(minutes=4)
_REFRESH = 30.0  # seconds


class Lease:
    """The right to write under one name; ``where`` is what error texts call the place.

    ``error`` is the error to raise; ``refresh`` is in seconds.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        where: str,
        error: type[HaversackError] = StoreError,
        *,
        refresh: float = _REFRESH,
    ) -> None:
        self._client, self._folder, self._where, self._error = client, f"{FOLDER}/{name}/", where, error
        self._refresh = refresh
        self._mine = ""
        self._then: datetime | None = None
        self._lost = ""
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Hold the lease; give up after ``patience`` seconds of others holding it, naming the holder.

        Whoever loses it meanwhile (a machine that slept, a network that was away) is told by :meth:`confirm`.
        """
        self._take(patience)
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(ended,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            mine, self._mine = self._mine, ""
            # Where even this fails, the lease is stale in five minutes.
            with contextlib.suppress(HaversackError, FileNotFoundError):
                self._delete(mine)

    @property
    def active(self) -> bool:
        """Whether it is (or was thought to be) held here."""
        return bool(self._mine)

    def confirm(self) -> None:
        """Put the lease anew.  Raises the error when it is lost: others may have written since."""
        with self._turn:
            if not self._lost:
                self._renew()
            if self._lost:
                raise self._error(
                    f"the right to write was lost: {self._lost}",
                    where=self._where,
                    remedy="run this again; nothing of it was published",
                )

    def _take(self, patience: float) -> None:
        due = time.monotonic() + patience
        while True:
            mine = self._folder + secrets.token_hex(16)
            try:
                now = self._put(mine)
                holder = self._other(mine, now)
            except BaseException:
                with contextlib.suppress(HaversackError, FileNotFoundError):
                    self._delete(mine)
                raise
            if not holder:
                self._mine, self._then, self._lost = mine, now, ""
                return
            self._delete(mine)
            if time.monotonic() > due:
                raise self._error(
                    f"is in use by {holder}",
                    where=self._where,
                    remedy="wait for it to end, then run this again (a killed one lets go after 5 minutes)",
                )
            # Of two that met, each comes back at another moment.
            time.sleep(random.uniform(0.05, 0.4))  # noqa: S311

    def _other(self, mine: str, now: datetime) -> str:
        """Who else holds a live lease, or nobody once stale ones were taken away."""
        with explained(self._where, "locking", self._error):
            found = [entry for page in self._client.list(self._folder) for entry in page]
        holder = ""
        for entry in found:
            # Keys come relative to the prefix of the client.
            path = entry["path"]
            if path == mine:
                continue
            if now - entry["last_modified"] > STALE:
                self._delete(path)
            elif not holder:
                holder = self._name(path)
        if not any(entry["path"] == mine for entry in found):
            raise self._error(
                "its listings do not show what was just put there",
                where=self._where,
                remedy="use a storage whose listings are consistent",
            )
        return holder

    def _name(self, path: str) -> str:
        try:
            with explained(self._where, "locking", self._error):
                return bytes(self._client.get(path).bytes()).decode(errors="replace")[:200] or "somebody"
        except FileNotFoundError:
            return "somebody who has just ended"

    def _put(self, path: str) -> datetime:
        """Put a lease; when that was, by the server's clock."""
        told = f"process {os.getpid()} of {actor()} on {platform.node()}".encode()
        with explained(self._where, "locking", self._error):
            self._client.put(path, told, use_multipart=False)
            return self._client.head(path)["last_modified"]

    def _delete(self, path: str) -> None:
        with explained(self._where, "unlocking", self._error):
            self._client.delete(path)

    def _renew(self) -> None:
        """Put the lease anew, unless it is gone or too old: then ``_lost`` says why."""
        assert self._then is not None
        try:
            with explained(self._where, "locking", self._error):
                self._client.head(self._mine)
            now = self._put(self._mine)
        except FileNotFoundError:
            self._lost = "somebody took the lease for a dead one's"
            return
        if now - self._then > _DOUBTFUL:
            self._lost = f"it was not renewed for {(now - self._then).total_seconds():.0f} seconds"
        self._then = now

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self._refresh):
            with self._turn:
                # What fails now may work in 30 seconds; how long it failed, the server's clock tells then.
                with contextlib.suppress(HaversackError):
                    self._renew()
                if self._lost:
                    return
