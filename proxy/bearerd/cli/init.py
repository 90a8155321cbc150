"""`bearerd init`: a configuration from a preset and a few answers."""

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from bearerd.cli.completing import complete_preset
from bearerd.cli.naming import refuse_name
from bearerd.errors import BearerdError

if TYPE_CHECKING:
    from bearerd.settings import Loaded
    from bearerd.settings.presets import Preset, Question

_FLAGS: Final = {
    "issuer": "--issuer",
    "client_id": "--client-id",
    "audience": "--audience",
    "upstream": "--upstream",
}
_LABELS: Final = {
    "issuer": "Issuer, the address of the authorization server",
    "audience": "Audience, the identifier of the API",
    "upstream": "Address of the API",
}
DEFAULT: Final = "work"
_PATH: Final = click.Path(path_type=Path)
T = TypeVar("T")


@click.command("init")
@click.option(
    "--provider",
    shell_complete=complete_preset,
    help="The preset to begin with, such as oidc, google or github.",
)
@click.option("--account", help="What the account is to be called. [default: work]")
@click.option("--issuer", help="The authorization server.")
@click.option("--client-id", help="What it calls this client.")
@click.option(
    "--client-secret-file", "secret_file", type=_PATH, help="A file that holds the client's secret."
)
@click.option("--audience", help="The identifier of the API, where the server wants one.")
@click.option("--scopes", help="The scopes to ask for, with spaces between them.")
@click.option("--upstream", help="The address of the API.")
@click.option("-o", "--output", type=_PATH, help="The file to write. [default: the one that bearerd reads]")
@click.option("--force", is_flag=True, help="Replace a file that is there, and keep it as a backup.")
def command(
    provider: str | None,
    account: str | None,
    secret_file: Path | None,
    scopes: str | None,
    output: Path | None,
    *,
    force: bool,
    **values: str | None,
) -> None:
    """Write a configuration from a preset and a few answers.

    What no option says is asked, on a terminal. A file that is there is not touched without --force. The new one is for its owner only, and is loaded before it
    is put in its place.

    Example: bearerd init --provider github
    """
    target = find_target(output, os.environ)
    refuse_existing(target, force=force)
    terminal = sys.stdin.isatty()
    given: dict[str, str | list[str]] = {key: value for key, value in values.items() if value is not None}
    if scopes is not None:
        given["scopes"] = scopes.split()
    preset = choose_preset(provider, terminal=terminal)
    thorough = terminal and provider is None
    account = account or (_prompt("Name of the account", str, DEFAULT) if thorough else DEFAULT)
    text = complete(preset, account, given, terminal=terminal, thorough=thorough)
    text, secret = settle_secret(text, secret_file, terminal=terminal)
    loaded = write(text, secret, target, force=force)
    click.echo(describe(loaded, account, target, default=target == find_target(None, os.environ)))


def complete(
    preset: "Preset",
    account: str,
    given: Mapping[str, str | Sequence[str]],
    *,
    terminal: bool,
    thorough: bool,
) -> str:
    """The preset's text with what was given and what is answered; `thorough` asks for what has a default too."""
    from bearerd.settings.presets import list_questions, name_account, replace_value

    text = name_account(preset.text, account)
    for key, value in given.items():
        text = replace_value(text, key, value)
    asked = [question for question in list_questions(text) if question.key not in given]
    text = answer_all(text, asked, terminal=terminal)
    return offer_defaults(text, {*given, *(question.key for question in asked)}) if thorough else text


def find_target(output: Path | None, environ: Mapping[str, str]) -> Path:
    """Where to write: what bearerd reads if nothing else is said."""
    from bearerd.places import default_path, find_file

    return find_file(output, environ) or default_path()


def refuse_existing(target: Path, *, force: bool) -> None:
    if os.path.lexists(target) and not force:
        raise BearerdError(
            f"{target} is there already; replace it with --force, which keeps a backup, or name another with -o"
        )


def choose_preset(name: str | None, *, terminal: bool) -> "Preset":
    from bearerd.settings.presets import load_presets

    presets = load_presets()
    if name is None and terminal:
        for preset in presets.values():
            click.echo(f"  {preset.name:12}{preset.title}", err=True)
        choice = click.Choice(list(presets), case_sensitive=False)
        name = click.prompt("Provider", type=choice, default="oidc", show_choices=False, err=True)
    if name is None:
        raise click.UsageError(f"--provider is missing; name one of {', '.join(presets)}")
    if name not in presets:
        refuse_name("preset", name, presets, "--provider")
    return presets[name]


def answer_all(text: str, asked: Sequence["Question"], *, terminal: bool) -> str:
    """The text with an answer to every question. Without a terminal every answer is an option."""
    if asked and not terminal:
        missing = ", ".join(f"{_FLAGS[question.key]} (in place of {question.value})" for question in asked)
        raise click.UsageError(f"something is still to be said; give {missing}")
    for question in asked:
        if question.value in text:  # an earlier answer may have told this one too
            text = ask(text, question)
    return text


def ask(text: str, question: "Question") -> str:
    """Ask until the answer will do. An address in place of a part of it is taken as it is."""
    from bearerd.settings.presets import replace_part, replace_value

    check = _checks().get(question.key, _check_text)

    def apply(answer: str) -> str:
        if question.whole or "://" in answer:
            return replace_value(text, question.key, check(answer))
        return replace_part(text, str(question.placeholder), answer)

    return _prompt(_label(question), apply)


def _checks() -> dict[str, Callable[[str], str]]:
    from bearerd.settings.values import parse_endpoint, parse_upstream

    return {
        "issuer": _real(parse_endpoint),
        "upstream": _real(parse_upstream),
        "audience": _real(_check_text),
    }


def _real(check: Callable[[str], str]) -> Callable[[str], str]:
    def checked(answer: str) -> str:
        if "example.com" in answer or "YOUR-" in answer:
            raise ValueError("is only an example; write your own")
        return check(answer)

    return checked


def _check_text(answer: str) -> str:
    if not answer.isprintable():
        raise ValueError("has a control character in it")
    return answer


def _label(question: "Question") -> str:
    if question.placeholder is None:
        return f"{_LABELS[question.key]}, such as {question.value}"
    words = question.placeholder.removeprefix("YOUR-").split("-")
    label = " ".join(words).capitalize().replace(" id", " ID")
    return label if question.whole else f"{label}, in {question.value}"


def _prompt(label: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Ask until `parse` raises no ValueError."""

    def parse_answer(answer: str) -> T:
        try:
            return parse(answer.strip())
        except ValueError as problem:
            raise click.UsageError(str(problem)) from None

    answer: T = click.prompt(label, default, value_proc=parse_answer, err=True)
    return answer


def offer_defaults(text: str, answered: set[str]) -> str:
    """What has a good default, to be looked at by who answers questions anyway."""
    from bearerd.settings.presets import read_values, replace_value

    values = read_values(text)
    if "scopes" not in answered:
        scopes: list[str] = _prompt("Scopes, with spaces between them", str.split, " ".join(values["scopes"]))
        text = replace_value(text, "scopes", scopes)
    if "upstream" not in answered:
        upstream: str = _prompt(_LABELS["upstream"], _checks()["upstream"], values["upstream"])
        text = replace_value(text, "upstream", upstream)
    return text


def settle_secret(text: str, file: Path | None, *, terminal: bool) -> tuple[str, str | None]:
    """The text with the file of the client's secret in it or out of it, and the secret where it was typed."""
    from bearerd.settings.presets import SECRET, read_values, remove_value, replace_value

    if file is not None:
        return replace_value(text, SECRET, str(file.absolute())), None
    if SECRET not in read_values(text):
        return text, None
    if not terminal:
        raise click.UsageError("this provider gives a client secret: name its file with --client-secret-file")
    secret: str = click.prompt(
        "Client secret, or nothing if there is none", "", hide_input=True, err=True, show_default=False
    )
    if secret:
        return text, secret.strip()
    return remove_value(remove_value(text, SECRET), "client_auth"), None


def write(text: str, secret: str | None, target: Path, *, force: bool) -> "Loaded":
    """The files, if they load. Raises ConfigError with nothing written, BearerdError."""
    from bearerd.settings.presets import SECRET, read_values
    from bearerd.way import make_folders

    files = {target: text}
    if secret is not None:
        files[target.parent / read_values(text)[SECRET]] = secret + "\n"
    for file in files:
        refuse_existing(file, force=force)
    try:
        make_folders(target.parent)
        loaded = try_out(files, target)
        for file, content in files.items():
            put_aside(file)
            create(file, content)
    except OSError as exc:
        raise BearerdError(
            f"{exc.filename or target} cannot be written: {os.strerror(exc.errno or 0).lower()}; "
            "mend that, or name another file with -o"
        ) from None
    return loaded


def try_out(files: Mapping[Path, str], target: Path) -> "Loaded":
    """What the files are worth, in a folder beside the real one. Raises ConfigError."""
    from bearerd.settings import load

    with tempfile.TemporaryDirectory(prefix=".bearerd-init-", dir=target.parent) as folder:
        for file, content in files.items():
            create(Path(folder, file.name), content)
        return load(Path(folder, target.name), {}, {})


def put_aside(file: Path) -> None:
    """A file that is there gets a name that is free."""
    names = (file.with_name(f"{file.name}.bak{number or ''}") for number in count())
    if os.path.lexists(file):
        backup = next(name for name in names if not os.path.lexists(name))
        file.rename(backup)
        click.echo(f"bearerd: {file} is kept as {backup}", err=True)


def create(file: Path, content: str) -> None:
    """A new file, for its owner only from the start. Raises FileExistsError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(content)


def describe(loaded: "Loaded", account: str, target: Path, *, default: bool) -> str:
    """What was written, and what is to be done next."""
    from bearerd.core.accounts import OAuthSource
    from bearerd.core.redirects import CALLBACK, build_base

    source = loaded.configuration.accounts[account].source
    configured = source.redirect_uri if isinstance(source, OAuthSource) else None
    listen = loaded.configuration.listen
    redirect_uri = configured or build_base(listen.public_url, listen.hosts, listen.port) + CALLBACK
    named = "" if default else f" -c {shlex.quote(str(target))}"
    return "\n".join(
        [
            f"wrote {target}; its first lines say how to register",
            f"redirect URI to register: {redirect_uri}",
            "next:",
            f"  bearerd run{named}",
            f"  bearerd login {account}{named}",
        ]
    )
