from both_loops import everything_closed, nothing_left, pytest_asyncio_loop_factories

__all__ = ["everything_closed", "nothing_left", "pytest_asyncio_loop_factories"]
