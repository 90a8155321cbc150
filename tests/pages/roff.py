"""The commands and the settings as man pages, in the macros of man(7)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Final

from bearerd.settings.documentation import NOTHING, Described, Section
from pages.commands import Command, is_kept

_CHARACTERS: Final = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}
_CODE: Final = re.compile(r"`([^`]+)`")

_PROGRAM: Final = """\
.TH BEARERD 1 "" bearerd "User Commands"
.SH NAME
bearerd \\- {summary}
.SH SYNOPSIS
.B bearerd
.I COMMAND
[\\fIOPTIONS\\fR]
[\\fIARGUMENTS\\fR]
.SH DESCRIPTION
{description}
.PP
Every command has
.B \\-h
and
.BR \\-\\-help .
.SH COMMANDS
{commands}
.SH EXIT STATUS
{status}
.SH ENVIRONMENT
.TP
.B BEARERD_CONFIG
The configuration file, where no option names one.
.TP
.BI BEARERD_ SECTION __ KEY
A setting, before what the file says of it; see
.BR bearerd.toml (5).
.TP
.B NO_COLOR
With any value: no colours on a terminal.
.SH FILES
.TP
.I \\(ti/.config/bearerd/bearerd.toml
The configuration, on Linux.
.B bearerd config check
says where it is elsewhere.
.TP
.I \\(ti/.local/share/bearerd/vault
The sealed tokens, on Linux.
.SH SEE ALSO
.BR bearerd.toml (5)
"""
_FILE: Final = """\
.TH BEARERD.TOML 5 "" bearerd "File Formats"
.SH NAME
bearerd.toml \\- configuration of bearerd
.SH DESCRIPTION
A file in TOML. A flag is before the environment, the environment before the
file, the file before the defaults. A key that bearerd does not know is an
error, and so is a variable that begins with
.BR BEARERD_ .
.PP
Durations are seconds, or texts such as "500ms", "30s", "5m" and "2h"; sizes
are bytes, or texts such as "64KiB" and "1MiB".
.PP
.B bearerd config check
says whether a file is good, and
.B bearerd config show
what is in effect and where each value is from.
{sections}
.SH SEE ALSO
.BR bearerd (1)
"""
_TABLES: Final = {"accounts": "[accounts.NAME]", "routes": '[routes."/prefix/"]'}


def build_of_program(commands: Sequence[Command]) -> str:
    program, *others = commands
    return _PROGRAM.format(
        summary=escape(program.summary[0].lower() + program.summary[1:].rstrip(".")),
        description="\n.PP\n".join(fill(_plain(text)) for text in program.paragraphs[1:]),
        commands="\n".join(line for command in others if not command.group for line in _command(command)),
        status=fill(_plain(program.epilog.removeprefix("Exit status: "))),
    )


def _command(command: Command) -> Iterator[str]:
    yield f".SS {escape(command.usage)}"
    for number, paragraph in enumerate(command.paragraphs):
        if number:
            yield ".PP"
        yield from _kept(paragraph) if is_kept(paragraph) else [fill(_plain(paragraph))]
    for names, text in command.options:
        yield from (".TP", f".B {escape(names)}", fill(_plain(text)))
    yield from (".PP", "Example:", ".PP", *_kept(command.example))


def _kept(text: str) -> Iterator[str]:
    yield from (".RS 4", ".nf", *map(escape, text.splitlines()), ".fi", ".RE")


def build_of_file(sections: Mapping[str, Section]) -> str:
    return _FILE.format(
        sections="\n".join(line for name in sections for line in _section(name, sections[name]))
    )


def _section(name: str, section: Section) -> Iterator[str]:
    yield f".SH {escape(_TABLES.get(name, f'[{name}]'))}"
    if section.purpose:
        yield fill(mark(section.purpose))
    for key, row in section.settings.items():
        yield from (".TP", f'.BR {escape(key)} " {_kind(row)}"', fill(mark(row.text)))


def _kind(row: Described) -> str:
    default = "" if row.value is NOTHING else f", by default {row.default.strip('`')}"
    return escape(f"({row.kind.replace('`', '')}{default})").replace('"', "\\(dq")


def mark(text: str) -> str:
    """Escaped, with what is code in Markdown in bold."""
    parts = _CODE.split(text)
    return "".join(
        f"\\fB{_plain(part)}\\fR" if number % 2 else _plain(part) for number, part in enumerate(parts)
    )


def escape(text: str) -> str:
    return _guard(_plain(text))


def fill(text: str) -> str:
    """Text in lines that people who read the source can read, too."""
    lines = wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_guard, lines))


def _plain(text: str) -> str:
    return "".join(_CHARACTERS.get(char, char) for char in text)


def _guard(text: str) -> str:
    """A line that begins with a dot would be a macro."""
    return f"\\&{text}" if text.startswith(".") else text
