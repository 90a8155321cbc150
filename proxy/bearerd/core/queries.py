"""What a request target's query has in it, however its names are spelt."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

_PAIRS: Final = re.compile(rb"[&;]")


def has_parameter(target: bytes, name: bytes) -> bool:
    """Whether the query has a parameter called `name` (lower case)."""
    names = (pair.partition(b"=")[0] for pair in _PAIRS.split(target.partition(b"?")[2]))
    return any(unquote_to_bytes(each).strip().lower() == name for each in names)
