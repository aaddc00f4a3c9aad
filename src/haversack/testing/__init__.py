"""For those who write a store, a ledger, a medium or a kind of environment of their own.

The classes here are in-memory twins of the protocols in :mod:`haversack.ports`: they keep every promise
made there, without a disk, a network or a clock.  :mod:`haversack.testing.contracts` holds those promises
as test suites; haversack's own tests run each of them on the real implementation and on the twin.
"""

from haversack.testing.elsewhere import MemoryFetch, MemoryRegistries, ScriptedRun
from haversack.testing.records import FixedClock, MemoryLedger, SteppingProgress
from haversack.testing.storage import MemoryMedia, MemoryStore, MemoryWriter

__all__ = [
    "FixedClock",
    "MemoryFetch",
    "MemoryLedger",
    "MemoryMedia",
    "MemoryRegistries",
    "MemoryStore",
    "MemoryWriter",
    "ScriptedRun",
    "SteppingProgress",
]
