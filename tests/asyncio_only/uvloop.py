"""First on the path of `make plain`: no process of that run, whoever started it, gets the real one."""

raise ImportError("this run of the tests is on asyncio's own event loop")
