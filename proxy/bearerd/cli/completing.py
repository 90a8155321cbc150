"""What a shell completes: names out of the configuration. It is asked at each press of Tab, so it is quick and never complains."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

AFTER_DASHES: Final = "bearerd.after_dashes"


def complete_account(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The accounts of the configuration that the command line names, or the default one."""
    del param
    return sorted(name for name in _names(ctx, "accounts") if name.startswith(incomplete))


def complete_route(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Likewise its routes. After two dashes stands a command of somebody else's."""
    del param
    from click.shell_completion import CompletionItem

    if ctx.meta.get(AFTER_DASHES):
        return [CompletionItem(incomplete, type="file")]
    prefixes = {prefix.rstrip("/") or "/" for prefix in _names(ctx, "routes")}
    return sorted(prefix for prefix in prefixes if prefix.startswith(incomplete))


def complete_preset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The presets of `bearerd init`."""
    del ctx, param
    from bearerd.settings.presets import load_presets

    return [name for name in load_presets() if name.startswith(incomplete)]


def _names(ctx: click.Context, section: str) -> Iterable[str]:
    """A file that is not good is read as far as that goes: it is not for this to say so."""
    import tomllib

    from bearerd.places import find_file

    names = set(_variables(section))
    with suppress(OSError, ValueError, RecursionError):
        file = find_file(ctx.params.get("path"), os.environ)
        if file is not None:  # the shell has not looked at the line yet: a ~ is still one
            text = Path(os.path.expanduser(file)).read_text(encoding="utf-8-sig")  # noqa: PTH111  # never raises
            table = tomllib.loads(text).get(section)
            names.update(table if isinstance(table, dict) else ())
    return names


def _variables(section: str) -> Iterator[str]:
    """The names that variables of the environment have."""
    start = f"BEARERD_{section.upper()}__"
    for name in os.environ:
        if name.upper().startswith(start):
            middle = name[len(start) :].rpartition("__")[0]
            yield middle.lower() if section == "accounts" else middle
