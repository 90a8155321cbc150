from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lines import Line, laid


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """One for all tests of a module."""
    async with laid(tmp_path_factory.mktemp("line")) as line:
        yield line
