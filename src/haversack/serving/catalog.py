"""The snapshots of a store and their views, kept as long as they are asked for.

The store's index is looked at again at most five times a second.  A snapshot that is no longer the current
one stays open for whoever is still reading from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cached_property, partial

from haversack.errors import NotFoundError
from haversack.formats.canonical import canonical
from haversack.model.artifact import Digest
from haversack.ports import Store
from haversack.serving import routes
from haversack.verbs import holdings
from haversack.verbs.holdings import Held, Holdings
from haversack.views import Union, view_of

LOOK_SECONDS, ASK_SECONDS = 0.2, 2.0
"""How old what is known of the index may be: of one on a disk, and of one that is far away."""
_OPEN = 4


class Shown:
    """A snapshot that is shown: what the store calls it, and its views; made in a thread."""

    def __init__(self, held: Held, view: Union) -> None:
        self.held = held
        self.view = view
        self.hosts = frozenset(
            path.partition("/")[0]
            for prefix in routes.HOSTS
            if (part := view.parts.get(prefix))
            for path in part.paths()
        )
        """The hosts that its files came from, as the views call them."""

    @cached_property
    def paths(self) -> Sequence[str]:
        """Every path of the views, sorted; for a thread."""
        return sorted(self.view.paths())


class Catalog:
    """The snapshots of a store by name.

    ``stamp`` is a quick look at whether the store's index is still the same one; without it the index itself
    is read, in a thread and less often.  ``on_change`` is called when another one was found.
    """

    def __init__(
        self, store: Store, pool: Executor, stamp: Callable[[], object] | None, on_change: Callable[[], None]
    ) -> None:
        self._store, self._pool = store, pool
        self._stamp, self._on_change = stamp, on_change
        self._seen: object = None
        self._look_at = 0.0
        self._holdings: Holdings | None = None
        self._open: OrderedDict[Digest, asyncio.Future[Shown]] = OrderedDict()
        self._reading: asyncio.Task[Holdings] | None = None

    def fresh(self) -> bool:
        """Whether the index is the one that was read last, as far as a quick look tells."""
        now = time.monotonic()
        if now < self._look_at:
            return self._holdings is not None
        if self._stamp is None:
            # The answer is of before; whoever asks after the reading gets the new one.
            self._look_at = now + ASK_SECONDS
            if self._holdings is not None:
                self._read()
            return self._holdings is not None
        self._look_at = now + LOOK_SECONDS
        try:
            seen = self._stamp()
        except OSError as problem:
            seen = str(problem)
        if seen != self._seen:
            self._seen = seen
            self._holdings = None
            # One that is being read now may have been opened before it changed.
            self._reading = None
            self._on_change()
        return self._holdings is not None

    async def holdings(self) -> Holdings:
        """What the store holds now.  Raises ``StoreError`` and what reading it raises."""
        if self.fresh() and self._holdings is not None:
            return self._holdings
        return await asyncio.shield(self._read())

    def _read(self) -> asyncio.Task[Holdings]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._reread())
            self._reading.add_done_callback(_looked_at)
        return self._reading

    async def _reread(self) -> Holdings:
        loop = asyncio.get_running_loop()
        before = self._seen
        found, seen = await loop.run_in_executor(self._pool, self._from_store)
        if self._stamp is None and seen != self._seen:
            self._seen = seen
            self._on_change()
        if self._stamp is None or before == self._seen:
            self._holdings = found
        return found

    def _from_store(self) -> tuple[Holdings, bytes]:
        found = holdings.read(self._store)
        return found, canonical([[h.name, h.snapshot, h.current] for h in found.held])

    async def shown(self, name: str | None) -> Shown:
        """The snapshot of that name, or the current one.

        Raises ``NotFoundError`` naming those there are, and what reading a store raises.
        """
        known = await self.holdings()
        held = known.current if name is None else known.named(name)
        if held is None:
            raise NotFoundError("the store holds no snapshot yet", remedy="haversack receive BUNDLE")
        future = self._open.get(held.snapshot)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._pool, partial(self._load, held))
            self._open[held.snapshot] = future
            future.add_done_callback(partial(self._loaded, held.snapshot))
        self._open.move_to_end(held.snapshot)
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return await asyncio.shield(future)

    def _loaded(self, snapshot: Digest, future: asyncio.Future[Shown]) -> None:
        """Forget a snapshot that could not be opened, for whatever reason: it may be possible the next time."""
        if (future.cancelled() or future.exception()) and self._open.get(snapshot) is future:
            del self._open[snapshot]

    def _load(self, held: Held) -> Shown:
        return Shown(held, view_of(holdings.load(self._store, held.snapshot)))


def _looked_at(task: asyncio.Task[Holdings]) -> None:
    """Whoever waits for a reading gets its error; a reading that nobody waits for is tried again."""
    if not task.cancelled():
        task.exception()
