"""Each channel with a leak planted in it: a test that has one fails, and says which and where."""

import os
import re
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

import canaries

PLANTED = '''
import asyncio, base64, json, logging, os, subprocess, sys
from pathlib import Path
from urllib.parse import quote
import aiohttp, pytest, structlog
from aiohttp import web
import canaries, commands
from daemons import RunningDaemon
from login_world import Browser
from canaries import pytest_runtest_makereport, pytest_runtest_setup

SECRET = canaries.make("access")
OWN = "a-secret/of+a configuration"
TOML = '[accounts.work]\\ntoken = "{token}"\\n'


async def leaking(out, err):
    """A command that prints."""
    program = f"import sys; sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit()"
    return await commands.run("status", python=("-c", program))


def test_nothing():
    print("nothing")


async def test_said():
    await leaking("", SECRET)

async def test_printed():
    await leaking(SECRET, "")

def test_captured():
    print(SECRET)

def test_event():
    structlog.get_logger("x").debug("x.y", some=[SECRET])

def test_library():
    logging.getLogger("lib").warning("a text: %s", SECRET)

def test_file(tmp_path):
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "work.failure").write_text(SECRET)

def test_core(tmp_path):
    (tmp_path / "core.123").write_bytes(b"\\0" * 100 + SECRET.encode() + b"\\0")

async def test_page():
    async def answer(request):
        return web.Response(text=SECRET)
    await browse(answer)

async def test_field():
    async def answer(request):
        return web.Response(headers={"X-Trace": SECRET})
    await browse(answer)

async def test_code_of_the_address():
    async def answer(request):
        return web.Response(text=request.query_string)
    await browse(answer, "/?code=an-unmarked-code")

async def browse(answer, path="/"):
    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Browser() as browser:
            await browser.go(f"http://127.0.0.1:{runner.addresses[0][1]}{path}")
    finally:
        await runner.cleanup()

def sleeper(**given):
    words = given.pop("words", ())
    return subprocess.Popen([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)", *words],
        env=os.environ | given, stdout=subprocess.PIPE)

def test_arguments():
    process = sleeper(words=(SECRET,))
    process.stdout.readline()
    canaries.note_process(process.pid)
    process.kill()
    process.communicate()

def test_environment():
    process = sleeper(ANY=SECRET)
    process.stdout.readline()
    canaries.note_process(process.pid)
    process.kill()
    process.communicate()

def test_environment_of_a_child():
    program = "import subprocess; subprocess.Popen(['sh', '-c', 'echo 1; read x'], stdin=subprocess.PIPE).wait()"
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"ANY": SECRET},
        stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    canaries.note_process(process.pid, ("ANY",))
    os.killpg(process.pid, 9)
    process.communicate()

def test_given_by_environment():
    process = sleeper(ANY=SECRET)
    process.stdout.readline()
    canaries.note_process(process.pid, ("ANY",))
    process.kill()
    process.communicate()

@pytest.mark.parametrize("form", ["base64", "json", "percent", "hex"])
def test_own(form, tmp_path):
    commands.write(tmp_path, TOML.format(token=OWN))
    shown = {"base64": base64.b64encode(b"user:" + OWN.encode()).decode(), "json": json.dumps({"a": OWN}),
        "percent": quote(OWN, safe=""), "hex": OWN.encode().hex()}
    canaries.note("anything", shown[form])

async def test_a_daemon_that_shows_its_route(tmp_path):
    """A real one, whose log has a secret as a route's account."""
    toml = '[accounts.c4n4ry-name]\\ntoken = "x"\\n[routes."/"]\\nupstream = "http://127.0.0.1:9"\\n'
    async with RunningDaemon(tmp_path, toml):
        pass'''
LEAKS = {
    "test_said": "access in what bearerd",
    "test_printed": "access in what bearerd",
    "test_captured": "access in captured stdout call",
    "test_event": "access in an event of the log",
    "test_library": "access in a library's message",
    "test_file": "access in the file work.failure",
    "test_core": "access in the file core.123",
    "test_page": "access in the page at /",
    "test_field": "access in the page at /",
    "test_code_of_the_address": "code in the page at /",
    "test_arguments": "access in the arguments of process",
    "test_environment": "access in the environment of process",
    "test_environment_of_a_child": "access in the environment of process",
    "test_own[base64]": "token in anything",
    "test_own[json]": "token in anything",
    "test_own[percent]": "token in anything",
    "test_own[hex]": "token in anything",
    "test_a_daemon_that_shows_its_route": "marked in the output of a daemon",
}
GOOD = {"test_nothing", "test_given_by_environment"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_every_leak_is_found_and_nothing_else(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    (tmp_path / "conftest.py").write_text(
        "from canaries import pytest_runtest_makereport, pytest_runtest_setup\n"
    )
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    words = (
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        "-rA",
        "-c",
        "pytest.ini",
        "test_planted.py",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{tests}"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = re.sub(canaries.MARK, "the mark", ended.stdout)
    found = dict(re.findall(r"_{2,} ERROR at teardown of (\S+) _{2,}\nsecrets came out:\n(.*)", said))
    assert {name: line for name, line in LEAKS.items() if not found.get(name, "").startswith(line)} == {}, (
        said
    )
    assert found.keys() == LEAKS.keys()
    assert f"{len(LEAKS) + len(GOOD)} passed, {len(LEAKS)} errors" in said


@pytest.mark.parametrize("value", ["c4n4ry-x", "a/b+c?d", 'é\n"quoted"', "x" * 7, "xy" * 4, "xyz" * 3])
@pytest.mark.parametrize("before", [b"", b"u:", b"user:", b"users:"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy"])
def test_the_forms_of_a_secret(value: str, before: bytes, after: bytes) -> None:
    """In base64 wherever it stands in what is encoded."""
    raw = value.encode()
    inside = before + raw + after
    known = dict.fromkeys(canaries.forms(value), "it")
    for text in (
        raw,
        b64encode(inside),
        urlsafe_b64encode(inside),
        quote(value).encode(),
        raw.hex().encode(),
    ):
        assert "it" in canaries.search(b"<" + text + b">", known)
    assert canaries.search(b"a text of no interest", known) == set()
