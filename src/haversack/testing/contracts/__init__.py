"""The protocols' docstrings as tests, for every implementation of them.

A suite is a class whose tests take fixtures; nothing here needs a test runner, but pytest is what knows
fixtures.  To hold a store of your own to the contract::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def bench(self, tmp_path):
            return StoreBench(lambda: MyStore(tmp_path), damage=flip_a_bit_of_a_blob)
"""

from haversack.testing.contracts.fetch import FetchBench, FetchContract
from haversack.testing.contracts.kind import Journey, KindContract, Sample, travel
from haversack.testing.contracts.ledger import LedgerBench, LedgerContract
from haversack.testing.contracts.media import MediaBench, MediaContract
from haversack.testing.contracts.platform import PlatformContract, PlatformSample
from haversack.testing.contracts.registries import RegistriesBench, RegistriesContract
from haversack.testing.contracts.run import RunBench, RunContract
from haversack.testing.contracts.store import StoreBench, StoreContract

__all__ = [
    "FetchBench",
    "FetchContract",
    "Journey",
    "KindContract",
    "LedgerBench",
    "LedgerContract",
    "MediaBench",
    "MediaContract",
    "PlatformContract",
    "PlatformSample",
    "RegistriesBench",
    "RegistriesContract",
    "RunBench",
    "RunContract",
    "Sample",
    "StoreBench",
    "StoreContract",
    "travel",
]
