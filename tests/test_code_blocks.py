"""What pages show to be copied is good: it can be read by what it is for, and what it names of bearerd is there."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import pytest
import yaml
from click import BadOptionUsage, BadParameter, Context, Group, MissingParameter, UsageError
from click.exceptions import Exit

from bearerd.cli import main
from bearerd.errors import ConfigError
from bearerd.settings import load
from bearerd.settings.model import SINGLE
from bearerd.settings.problems import Problems
from bearerd.settings.sources import HOOK_VARIABLES, read_environment
from blocks import Block, read_blocks, read_steps
from certificates import Authority
from log_events import TABLE
from pages.shell import read_commands
from test_links import PAGES, name_of, text_of

SHOWN: Final = {
    "caddyfile",
    "diff",
    "hcl",
    "http",
    "ini",
    "javascript",
    "nginx",
    "promql",
    "text",
    "xml",
}
"""Languages that nothing here reads."""

ANOTHERS: Final = re.compile(r"# *\S*(?<!bearerd)\.toml\b")
"""The first line of a TOML block that is another program's: `# ~/.config/other/config.toml`."""

SETTING: Final = re.compile(rf"({'|'.join(SINGLE)})\.([a-z_]+)")
CODE: Final = re.compile(r"`([^`\n]+)`")
VARIABLE: Final = re.compile(r"\bBEARERD_[A-Z0-9_]*[A-Z0-9]\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of each kind that a configuration may name."""
    folder = tmp_path_factory.mktemp("named")
    authority = Authority(folder)
    certificate, key = authority.issue("client")
    authority.ca_file.rename(folder / "ca_file")
    certificate.rename(folder / "client_cert_file")
    key.rename(folder / "client_key_file")
    for name in ("client_secret_file", "refresh_token_file", "token_file"):
        (folder / name).write_text("made-up\n")
    (folder / "proxy_file").write_text("http://proxy.example.com:3128\n")
    (folder / "key_secret_file").write_text("0" * 64)
    return folder


def check_configuration(text: str, folder: Path) -> None:
    """A piece of one is made whole: an account and a route are added where it has none."""
    document = tomllib.loads(text)
    accounts = list(document.get("accounts", {}))
    if not accounts:
        accounts = sorted(
            {route.get("account", "work") for route in document.get("routes", {}).values()}
        ) or ["work"]
        text += "".join(f'[accounts.{name}]\ntoken = "made-up"\n' for name in accounts)
    if "routes" not in document:
        text += f'[routes."/"]\nupstream = "https://api.example.com"\naccount = "{accounts[0]}"\n'
    path = folder / "bearerd.toml"
    path.write_text(re.sub(r'(?m)^(\w+_file) *= *".*?"', rf'\1 = "{folder}/\1"', text))
    load(path, {}, {})


def is_anothers(block: Block) -> bool:
    """Whether it is TOML of another program's, as its first line says, or the reason why nothing runs it."""
    return block.language == "toml" and (
        bool(ANOTHERS.match(block.text)) or "another product" in block.reason
    )


def check_toml(text: str, _: Path) -> None:
    tomllib.loads(text)


def check_shell(text: str, _: Path) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise ValueError(done.stderr)
    for arguments in read_commands(text):
        check_command(arguments, whole=True)


def check_command(arguments: list[str], *, whole: bool) -> None:
    """Raises UsageError where bearerd would refuse them. What is not `whole` may leave out what a command needs."""
    command, context, rest = find_command(arguments)
    if isinstance(command, Group):
        return
    try:
        command.make_context(context.info_name, rest, context.parent)
    except (MissingParameter, BadOptionUsage):
        if whole:
            raise
    except BadParameter as exc:
        if exc.param is None or not isinstance(
            exc.param.type, click.Path
        ):  # a file of the reader's is not here
            raise
    except Exit:  # --help
        pass


def find_command(arguments: list[str]) -> tuple[click.Command, Context, list[str]]:
    """The command that is meant and its arguments; a group where none is named, or any (`COMMAND`)."""
    command: click.Command = main
    context = Context(main, info_name="bearerd")
    while isinstance(command, Group):
        _, arguments, _ = command.make_parser(context).parse_args(list(arguments))
        if not arguments or arguments[0].isupper():
            break
        found = command.get_command(context, arguments[0])
        if found is None:
            raise UsageError(f"there is no {context.command_path} {arguments[0]}")
        command, context, arguments = found, Context(found, context, arguments[0]), arguments[1:]
    return command, context, arguments


def check_data(document: object) -> None:
    """A list that begins with bearerd is a command."""
    if isinstance(document, dict):
        for value in document.values():
            check_data(value)
    elif isinstance(document, list) and document[:1] == ["bearerd"]:
        check_command([str(word) for word in document[1:]], whole=True)
    elif isinstance(document, list):
        for value in document:
            check_data(value)


def check_yaml(text: str, _: Path) -> None:
    for document in yaml.safe_load_all(text):
        check_data(document)


def check_json(text: str, _: Path) -> None:
    check_data(json.loads(text))


def check_json5(text: str, folder: Path) -> None:
    check_json(re.sub(r"(?m)^[ \t]*//.*$", "", text), folder)


def check_dockerfile(text: str, _: Path) -> None:
    for words in re.findall(r"(?m)^.*?(?:CMD|ENTRYPOINT) (\[.*\])$", text):
        check_data(json.loads(words))


def check_python(text: str, _: Path) -> None:
    compile(text, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


CHECKS: Final[dict[str, Callable[[str, Path], None]]] = {
    "bash": check_shell,
    "console": check_shell,
    "dockerfile": check_dockerfile,
    "json": check_json,
    "json5": check_json5,
    "python": check_python,
    "sh": check_shell,
    "toml": check_configuration,
    "yaml": check_yaml,
}
FAULTS: Final = (ConfigError, SyntaxError, UsageError, ValueError, yaml.YAMLError)


def find_faults(page: str, folder: Path) -> Iterator[str]:
    for block in read_blocks(page):
        if block.language in CHECKS:
            yield from find_fault(block, folder)
        elif block.language not in SHOWN:
            yield f"line {block.line}: which language is {block.language!r}? There is: {sorted({*CHECKS, *SHOWN})}"


def find_fault(block: Block, folder: Path) -> Iterator[str]:
    check = check_toml if is_anothers(block) else CHECKS[block.language]
    try:
        check("\n".join(step.command for step in read_steps(block)), folder)
    except FAULTS as exc:
        yield f"line {block.line}: {exc.format_message() if isinstance(exc, UsageError) else exc}"


def find_unknown_names(page: str) -> Iterator[str]:
    """Commands, settings and variables within the text that bearerd does not have."""
    for code in CODE.findall(text_of(page)):
        setting = SETTING.match(code)
        if setting and setting[0] not in TABLE and setting[2] not in SINGLE[setting[1]].model_fields:
            yield f"no setting {code}"
        if code.startswith("bearerd "):
            try:
                check_command(re.sub(r"[\[\]]", "", code).split()[1:], whole=False)
            except UsageError as exc:
                yield f"{code}: {exc.format_message()}"


def find_unknown_variables(page: str) -> Iterator[str]:
    for name in sorted(set(VARIABLE.findall(page)) - HOOK_VARIABLES):
        problems = Problems()
        read_environment({name: "1"}, {}, problems)
        try:
            problems.check()
        except ConfigError as exc:
            yield str(exc)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_good(page: Path, folder: Path) -> None:
    assert list(find_faults(page.read_text(encoding="utf-8"), folder)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_the_text_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [*find_unknown_names(text), *find_unknown_variables(text)] == []


@pytest.mark.parametrize(
    ("language", "text", "fault"),
    [
        ("", "a", "which language"),
        ("tomml", "a = 1", "which language"),
        ("toml", "[listen]\nprot = 1", "listen.prot: unknown setting"),
        ("toml", '[accounts.a]\ngrant = "client_credentials"', "accounts.a"),
        ("toml", "# bearerd.toml\n[listen]\nport = -1", "listen.port"),
        ("toml", "# other.toml\na = ", "Invalid value"),
        ("sh", "if true; then", "syntax error"),
        ("sh", "bearerd lgin", "no bearerd lgin"),
        ("sh", "bearerd login --no-brwser", "--no-brwser"),
        ("sh", 'curl -H "Authorization: Bearer $(bearerd token)"', "Missing argument"),
        ("sh", "for a in b; do bearerd refresh $a b; done", "unexpected extra argument (b)"),
        ("sh", "sudo FOO=1 .venv/bin/bearerd run --port 100000 2>&1", "100000"),
        ("sh", "docker run --rm bearerd demp", "no bearerd demp"),
        ("sh", "kubectl exec pod -c bearerd -- bearerd statsu", "no bearerd statsu"),
        ("console", "$ bearerd token work --format \\\n  yml\nbearerd: no", "yml"),
        ("yaml", "a: [b", "expected"),
        ("yaml", "command: [bearerd, helthcheck]", "no bearerd helthcheck"),
        ("dockerfile", 'HEALTHCHECK --interval=10s CMD ["bearerd", "helthcheck"]', "no bearerd helthcheck"),
        ("json", "{a: 1}", "Expecting property name"),
        ("json5", '{\n  // why\n  "a": [1,]\n}', "line 3 column"),
        ("python", "a = ", "invalid syntax"),
    ],
)
def test_a_bad_block_is_found(language: str, text: str, fault: str, folder: Path) -> None:
    [found] = find_faults(f"text\n\n```{language}\n{text}\n```\n", folder)
    assert fault in found
    assert found.startswith(("line 3", "line 4"))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("toml", "# ~/.config/other/config.toml\nprot = 1"),
        ("toml", '[routes."/a/"]\nupstream = "https://a.example.com"\naccount = "me"'),
        ("toml", '[store]\nkey_secret_file = "$CREDENTIALS_DIRECTORY/vault.key"'),
        ("sh", "pip install bearerd\ndocker build -t bearerd ."),
        ("sh", "cat > a <<'END'\nbearerd lgin 'em\nEND\nbearerd run &"),
        ("sh", "BEARERD_LISTEN__PORT=1 bearerd exec /a -- python -c 'a\nb' --foo > out.txt 2> err.txt"),
        ("console", "$ bearerd status\nbearerd is of no use"),
        ("python", "async with a() as b:\n    await b"),
    ],
)
def test_a_good_block_is_good(language: str, text: str, folder: Path) -> None:
    assert list(find_faults(f"```{language}\n{text}\n```\n", folder)) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("`bearerd lgin`", "no bearerd lgin"),
        ("`bearerd token ACCOUNT --force --frmat`", "--frmat"),
        ("| a |\n|---|\n| `limits.drian` |", "no setting limits.drian"),
        ('`listen.peeruid = "any"`', "no setting listen.peeruid"),
        ("set BEARERD_LISTEN__PROT to that", "BEARERD_LISTEN__PROT: unknown variable"),
    ],
)
def test_a_name_that_is_not_there_is_found(text: str, fault: str) -> None:
    [found] = [*find_unknown_names(text), *find_unknown_variables(text)]
    assert fault in found


@pytest.mark.parametrize(
    "text", ["`bearerd COMMAND --help`", "`bearerd token ACCOUNT [--force]`", "`keys.unusable`"]
)
def test_a_name_that_is_there_is_none_too_many(text: str) -> None:
    assert [*find_unknown_names(text), *find_unknown_variables(text)] == []
