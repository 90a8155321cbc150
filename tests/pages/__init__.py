"""Pages that are made from the program itself: commands, settings, states, man pages, schema. `make pages` writes them.

There is no date in them, nor anything else of when and where they were made.
"""

import json
from pathlib import Path
from typing import Final

from bearerd.cli import main
from bearerd.settings.documentation import load_document, parse_document
from bearerd.settings.schema import build_schema
from pages.commands import read_commands
from pages.drawing import build_picture
from pages.markdown import build_reference
from pages.roff import build_of_file, build_of_program
from pages.settings import build_settings

PROJECT: Final = Path(__file__).parent.parent.parent


def build_pages() -> dict[str, str]:
    """The text of each page, by its path in the project."""
    commands = list(read_commands(main))
    sections = parse_document(load_document())
    return {
        "docs/account.svg": build_picture(),
        "docs/cli.md": build_reference(commands),
        "docs/man/bearerd.1": build_of_program(commands),
        "docs/man/bearerd.toml.5": build_of_file(sections),
        "docs/settings.md": build_settings(sections),
        "config/bearerd.schema.json": json.dumps(build_schema(sections), indent=2) + "\n",
    }
