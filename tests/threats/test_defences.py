"""Each defence is switched off in a copy of the package, and its tests fail: they would tell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from threats.defences import CODE, DEFENCES, TESTS, Defence
from threats.marked import find_tests

LIMIT_S: Final = 900
# What a test fails by that has found something out; a copy that cannot be run fails otherwise.
FOUND: Final = ("AssertionError", "assert ", "Failed: DID NOT RAISE", "TimeoutError", "Failed: Timeout")


def switch_off(defence: Defence, folder: Path) -> Path:
    """A copy of the package without the defence, in a folder for imports."""
    package = folder / "proxy" / "bearerd"
    shutil.copytree(CODE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "config").symlink_to(CODE.parent.parent / "config")  # presets are read beside the package
    changed = package / defence.file
    text = changed.read_text(encoding="utf-8")
    assert text.count(defence.text) == 1
    changed.write_text(text.replace(defence.text, defence.off), encoding="utf-8")
    return package.parent


def run(defence: Defence, imports: Path, report: Path) -> str:
    """Run the tests of a defence on the package in `imports`. What they say is for who reads a failure."""
    tests = [f"{file}{find_tests(file)[name][0]}" for file, name in defence.named()]
    # What the copy does counts for nothing in the coverage of the package.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    folder = report.parent / "tests"
    done = subprocess.run(  # noqa: PLW1510  # that they fail is what is wanted
        [
            *(sys.executable, "-m", "pytest", "-q", "--no-cov", "-p", "no:cacheprovider", "--tb=short"),
            *(f"--junitxml={report}", "--basetemp", str(folder), *tests),
        ],
        cwd=TESTS.parent,
        env=environment | {"PYTHONPATH": str(imports)},
        timeout=LIMIT_S,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(
        folder, ignore_errors=True
    )  # its secrets are not for who looks for them after this test: a core has them all
    return done.stdout[-8000:] + done.stderr[-2000:]


def failures(report: Path) -> dict[str, list[str]]:
    """The tests that failed, by name, and what each of their failures begins with."""
    found: dict[str, list[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        for trouble in (*case.iter("failure"), *case.iter("error")):
            name = case.attrib["name"].partition("[")[0]
            found.setdefault(name, []).append(f"{trouble.tag}: {trouble.attrib['message']}")
    return found


def check(defence: Defence, folder: Path) -> None:
    report = folder / "report.xml"
    said = run(defence, switch_off(defence, folder), report)
    failed = failures(report)
    assert {name for _, name in defence.named()} <= set(failed), said
    for name, troubles in failed.items():
        assert any(part in trouble for trouble in troubles for part in FOUND), f"{name}: {troubles}\n{said}"


def is_seen(defence: Defence) -> None:
    if defence.root and (sys.platform == "win32" or os.geteuid() != 0):
        pytest.skip("only root can be another user, too")


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_each_of_them_stands_where_the_table_says(defence: Defence) -> None:
    assert defence.source.read_text(encoding="utf-8").count(defence.text) == 1


def test_a_defence_that_is_switched_off_is_missed(tmp_path: Path) -> None:
    """One of them; `make soak` does it with all."""
    check(
        next(defence for defence in DEFENCES if defence.threat == 17 and defence.file == "core/csrf.py"),
        tmp_path,
    )


@pytest.mark.soak
@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_every_defence_that_is_switched_off_is_missed(defence: Defence, tmp_path: Path) -> None:
    is_seen(defence)
    check(defence, tmp_path)
