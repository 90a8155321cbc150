"""The events of the log, as docs/operations.md has them: the row of each in its table."""

import re
from pathlib import Path
from typing import Final

DOCUMENT: Final = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
ROW: Final = re.compile(r"(?m)^\| `([a-z]+\.[a-z_]+)` \| ([a-z, ]+) \|([^|]*)\| ([^|]+) \|$")
TABLE: Final = {match[1]: match for match in ROW.finditer(DOCUMENT)}
