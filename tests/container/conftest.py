from pathlib import Path

import pytest

from containers import PROJECT, Engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    """With the image built. What it makes is kept where `make clean` removes it."""
    made = Engine(PROJECT / ".make" / "containers")
    made.make_python()
    made.build()
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.container)
            item.add_marker(pytest.mark.soak)
