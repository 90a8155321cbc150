"""Names as people type them: what a misspelt one was meant to be, and how a command names the configuration in use."""

import os
import shlex
from collections.abc import Iterable
from typing import NoReturn

import click


def refuse_name(what: str, name: str, known: Iterable[str], hint: str) -> NoReturn:
    """Raises BadParameter for a name that is not among those there are."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1)
    question = f"; did you mean {near[0]}?" if near else ""
    raise click.BadParameter(
        f"there is no {what} {name}; there is {', '.join(names) or 'none'}{question}", param_hint=hint
    )


def config_option_for(file: str | None) -> str:
    """What a command needs after its name, to be of the configuration `file`: nothing if that is the default one."""
    from bearerd.places import default_path

    if file is None or file == os.path.realpath(default_path()):
        return ""
    return f" -c {shlex.quote(file)}"
