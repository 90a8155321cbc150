"""Runs one target with atheris, in this process: python -m fuzz TARGET [SECONDS]. See make fuzz.

It begins with the files of corpus/TARGET and keeps what it finds beside it, below .make/fuzz. Ends with an error at the
first input that a parser does not stand, or takes more than ten seconds for; the input is then in the folder too.
"""

import sys
from importlib import import_module
from typing import Final

from bearerd.core.configuration import Logging
from fuzz import CORPUS, FOUND, TARGETS

SECONDS: Final = 600
LIMIT_S: Final = 10
MEMORY_MIB: Final = 1024


def main(target: str, seconds: int = SECONDS) -> None:
    atheris = import_module("atheris")  # in a place of its own: see the Makefile
    with atheris.instrument_imports(include=["bearerd", "urllib", "ipaddress", "email"]):
        fuzz = import_module(f"fuzz.{target}").fuzz
    import_module("bearerd.logs").configure(Logging(level="critical"))
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={LIMIT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={found}/",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / target)], fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{','.join(TARGETS)}}} [SECONDS]")
    main(sys.argv[1], *(int(word) for word in sys.argv[2:]))
