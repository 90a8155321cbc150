"""bearerd, profiled from SIGUSR1 to SIGUSR2: what calls cost, without what starting costs.

Arguments: a file for the profile, then bearerd's own.
"""

import cProfile
import signal
import sys
from pathlib import Path

from bearerd.cli import main

FILE = Path(sys.argv.pop(1))
PROFILE = cProfile.Profile()


def end(*_: object) -> None:
    """The file is there at once and as a whole: somebody waits for it."""
    PROFILE.disable()
    PROFILE.dump_stats(FILE.with_suffix(".new"))
    FILE.with_suffix(".new").rename(FILE)


signal.signal(signal.SIGUSR1, lambda *_: PROFILE.enable())
signal.signal(signal.SIGUSR2, end)
main()
