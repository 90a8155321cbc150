"""``python -m bearerd`` is ``bearerd``."""

from bearerd.cli import main

main(prog_name="bearerd")
