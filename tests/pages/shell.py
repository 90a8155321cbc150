"""The calls of bearerd in a piece of shell."""

import re
import shlex
from collections.abc import Iterator
from typing import Final

_HEREDOC: Final = re.compile(r"""(?ms)(<<-?\s*(['"]?)(\w+)\2[^\n]*\n).*?^\s*\3$""")
_INNER: Final = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT: Final = re.compile(r"\w+=.*", re.DOTALL)
_BEFORE: Final = frozenset(
    {"!", "do", "else", "env", "exec", "if", "nohup", "sudo", "then", "time", "until", "uvx", "while", "{"}
)
_ENGINES: Final = frozenset({"docker", "kubectl", "podman"})
_OPERATORS: Final = "();<>|&"


def read_commands(script: str) -> Iterator[list[str]]:
    """The arguments of each, also of those in substitutions, loops and containers."""
    for line in _lines(_HEREDOC.sub(r"\1", script)):
        for command in _split(line):
            for word in command:
                yield from (found for inner in _INNER.findall(word) for found in read_commands(inner))
            yield from _of_bearerd(command)


def _lines(script: str) -> Iterator[str]:
    """Lines as the shell joins them: after a backslash, and within quotes."""
    kept = ""
    for line in script.replace("\\\n", " ").splitlines():
        kept = f"{kept}\n{line}" if kept else line
        try:
            list(_lexer(kept))
        except ValueError:
            continue
        yield kept
        kept = ""


def _lexer(line: str) -> shlex.shlex:
    lexer = shlex.shlex(re.sub(r"(?:(?<=\s)|^)#.*", "", line), posix=True, punctuation_chars=_OPERATORS)
    lexer.commenters = ""
    lexer.whitespace_split = True
    return lexer


def _split(line: str) -> Iterator[list[str]]:
    """Simple commands: what stands between operators, without redirections."""
    command: list[str] = []
    target = False
    for word in _lexer(line):
        if set(word) <= set(_OPERATORS):
            target = "<" in word or ">" in word
            if target and command and command[-1].isdigit():
                command.pop()
            elif not target:
                yield command
                command = []
        elif target:
            target = False
        else:
            command.append(word)
    yield command


def _of_bearerd(command: list[str]) -> Iterator[list[str]]:
    while command and (command[0] in _BEFORE or _ASSIGNMENT.fullmatch(command[0])):
        command = command[1:]
    if not command:
        return
    if _is_bearerd(command[0]):
        yield command[1:]
    elif "--" in command:
        yield from _of_bearerd(command[command.index("--") + 1 :])
    elif command[0] in _ENGINES and not {"run", "exec"}.isdisjoint(command):
        found = [index for index, word in enumerate(command) if _is_bearerd(word)]
        yield from (command[index + 1 :] for index in found[-1:])


def _is_bearerd(word: str) -> bool:
    return word.rpartition("/")[2] == "bearerd"
