"""For mitmdump in reverse mode: streams bodies and adds the token."""

import os
from typing import Any


def requestheaders(flow: Any) -> None:
    flow.request.stream = True
    flow.request.headers["authorization"] = f"Bearer {os.environ['BENCH_TOKEN']}"


def responseheaders(flow: Any) -> None:
    flow.response.stream = True
