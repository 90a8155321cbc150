"""The memory store keeps the contract of all stores."""

import pytest

from bearerd.stores.memory import MemoryStore
from contract import StoreContract


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestContract(StoreContract):
    """As the vault does."""
