"""Opening a browser: where it would be seen, and one program with one checked address whatever anybody says."""

import itertools
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.core.opening import build_opener, find_hindrance
from bearerd.core.targets import parse_origin

URL: Final = "https://login.example.com/authorize?client_id=cli&state=a-b_c~d&scope=api%3Aread+offline_access"
REMOTE: Final = "this is a remote session"
NO_DISPLAY: Final = "there is no display here"
SHELL: Final = "$`\\\"'<>|;()*!^{} \n\t\x00\x7f"


class Machine:
    """A machine on which the programs `names` are to be found. `asked` is what was looked for, in order."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    def which(self, name: str) -> str | None:
        self.asked.append(name)
        return f"/found/{name}" if name in self.names else None


def expected_hindrance(platform: str, environ: dict[str, str]) -> str | None:
    """The table, by its rows: $BROWSER is the person's own word, a remote session shows nothing, Linux needs a display."""
    rows = (
        ("BROWSER" in environ, None),
        ("SSH_CONNECTION" in environ, REMOTE),
        (platform != "linux", None),
        ("DISPLAY" in environ or "WAYLAND_DISPLAY" in environ, None),
        (True, NO_DISPLAY),
    )
    return next(outcome for applies, outcome in rows if applies)


VARIABLES: Final = {
    "BROWSER": "firefox",
    "SSH_CONNECTION": "10.0.0.2 50022 10.0.0.1 22",
    "DISPLAY": ":0",
    "WAYLAND_DISPLAY": "wayland-0",
}


class TestHindrance:
    @pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
    @pytest.mark.parametrize("presence", list(itertools.product([True, False], repeat=4)), ids=repr)
    def test_every_combination(self, platform: str, presence: tuple[bool, ...]) -> None:
        environ = {name: VARIABLES[name] for name, there in zip(VARIABLES, presence, strict=True) if there}
        assert find_hindrance(platform, environ) == expected_hindrance(platform, environ)
        empty = dict.fromkeys(VARIABLES, "") | environ
        assert find_hindrance(platform, empty) == expected_hindrance(platform, environ)

    @pytest.mark.parametrize(
        ("platform", "environ", "hindrance"),
        [
            ("linux", {}, NO_DISPLAY),
            ("linux", {"DISPLAY": ":0"}, None),
            ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, None),
            ("linux", {"DISPLAY": ":10", "SSH_CONNECTION": "a"}, REMOTE),
            ("linux", {"BROWSER": "w3m", "SSH_CONNECTION": "a"}, None),
            ("darwin", {}, None),
            ("darwin", {"SSH_CONNECTION": "a"}, REMOTE),
            ("win32", {}, None),
        ],
    )
    def test_some_of_them_in_words(
        self, platform: str, environ: dict[str, str], hindrance: str | None
    ) -> None:
        assert find_hindrance(platform, environ) == hindrance


class TestProgram:
    @pytest.mark.parametrize(
        ("platform", "browser", "there", "program"),
        [
            ("linux", None, ["xdg-open"], "xdg-open"),
            ("linux", "", ["xdg-open"], "xdg-open"),
            ("freebsd14", None, ["xdg-open"], "xdg-open"),
            ("darwin", None, ["open", "xdg-open"], "open"),
            ("win32", None, ["explorer.exe", "xdg-open"], "explorer.exe"),
            ("linux", "firefox", ["firefox", "xdg-open"], "firefox"),
            ("darwin", "firefox", ["firefox", "open"], "firefox"),
            ("linux", "absent", ["xdg-open"], "xdg-open"),
            ("darwin", "absent", ["open"], "open"),
            ("linux", "my browser", ["my browser", "my", "xdg-open"], "my browser"),
            ("linux", "firefox --new-tab", ["firefox", "xdg-open"], "xdg-open"),
            ("linux", "firefox %s", ["firefox", "xdg-open"], "xdg-open"),
            ("linux", "firefox:w3m", ["firefox", "w3m", "xdg-open"], "xdg-open"),
            ("linux", "sh -c 'touch x' #", ["sh", "xdg-open"], "xdg-open"),
            ("linux", "absent", ["open", "explorer.exe"], None),
            ("darwin", None, ["xdg-open"], None),
            ("win32", None, ["xdg-open"], None),
            ("linux", None, [], None),
        ],
    )
    def test_which_one(
        self, platform: str, browser: str | None, there: list[str], program: str | None
    ) -> None:
        environ = {} if browser is None else {"BROWSER": browser}
        argv = build_opener(URL, platform, environ, Machine(*there).which)
        assert argv == (None if program is None else [f"/found/{program}", URL])

    @pytest.mark.parametrize("browser", ["firefox -new-tab", "a;b", "$(touch x)", "'firefox'"])
    def test_what_browser_says_is_looked_for_as_it_is(self, browser: str) -> None:
        machine = Machine()
        assert build_opener(URL, "linux", {"BROWSER": browser}, machine.which) is None
        assert machine.asked == [browser, "xdg-open"]

    def test_the_program_gets_the_address_as_its_one_argument(self, tmp_path: Path) -> None:
        """A name with a space and a shell's characters, found and run as the command line does it."""
        program = tmp_path / "my $(browser); x"
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$#" "$@"\n')
        program.chmod(0o755)
        argv = build_opener(
            URL, "linux", {"BROWSER": program.name}, partial(shutil.which, path=str(tmp_path))
        )
        assert argv == [str(program), URL]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
        assert said.splitlines() == ["1", URL]


UNFIT: Final = [
    "",
    "login.example.com",
    "//login.example.com/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "javascript:alert(1)",
    "javascript://login.example.com/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "ftp://login.example.com/",
    "view-source:https://login.example.com/",
    "ms-msdt:/id",
    "http://login.example.com/",
    "http://10.0.0.1/",
    "http://0.0.0.0/",
    "http://localhost.example.com/",
    "http://127.0.0.1.example.com/",
    "http://127.0.0.1@example.com/",
    "https://login.example.com@example.com/",
    "https://",
    "https:///authorize",
    "https:login.example.com",
    "https://login.example.com:0/",
    "https://login.example.com/#fragment",
    "https://login.example.com/a b",
    "https://login.example.com/\N{SNOWMAN}",
    "-https://login.example.com/",
    "--remote-debugging-port=9222",
    "-",
    " https://login.example.com/",
    "\thttps://login.example.com/",
    "\nhttps://login.example.com/",
    "\x00https://login.example.com/",
    "java\nscript:alert(1)",
    "https://login.example.com/\x1b]0;x\x07",
    *(f"https://login.example.com/{place}{char}b" for place in ("a", "?a=") for char in SHELL),
]


class TestAddress:
    @pytest.mark.parametrize("url", UNFIT)
    def test_threat_6_what_is_not_opened(self, url: str) -> None:
        """Nor is a program looked for; and what is wrong is said without the address."""
        machine = Machine("xdg-open")
        with pytest.raises(ValueError, match=r"^(has|is|names) ") as caught:
            build_opener(url, "linux", {"BROWSER": "firefox"}, machine.which)
        assert machine.asked == []
        assert len(url) <= len("https://") or url not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            URL,
            "https://login.example.com",
            "http://127.0.0.1:6750/-/login/work",
            "http://localhost:6750/-/login/work",
            "http://[::1]:6750/-/login/work",
            "http://127.9.9.9/",
            "HTTPS://LOGIN.EXAMPLE.COM/",
        ],
    )
    def test_what_is_opened(self, url: str) -> None:
        assert build_opener(url, "linux", {}, Machine("xdg-open").which) == ["/found/xdg-open", url]

    @given(
        url=st.text(max_size=60)
        | st.text(alphabet=f"htps:/.?#@[]-&=%aA0{SHELL}", max_size=40)
        | st.text(alphabet=f"abc/?=&%{SHELL}@:#-", max_size=30).map(lambda rest: f"https://login.test{rest}")
        | st.builds(
            "{}{}{}".format,
            st.sampled_from(["http://", "https://", "HTTP://", "http:", "-http://"]),
            st.sampled_from(["127.0.0.1", "localhost", "[::1]", "127.1", "login.test", "0", ""]),
            st.text(alphabet=f"/:1.@?#=&-{SHELL}", max_size=6),
        ),
        browser=st.text(max_size=20),
        platform=st.sampled_from(["linux", "darwin", "win32"]),
    )
    @example(url="http://localhost:1/?a=b&c=d", browser="firefox -new-tab", platform="linux")
    @example(url="https://login.test/a", browser="", platform="darwin")
    def test_threat_6_whatever_it_is(self, url: str, browser: str, platform: str) -> None:
        """Either it is refused, or one program gets it unchanged, and it leads by https, or no further than here."""

        def which(name: str) -> str:
            return f"/found/{name}"

        try:
            argv = build_opener(url, platform, {"BROWSER": browser}, which)
        except ValueError:
            return
        assert argv is not None
        program, address = argv
        assert program.startswith("/found/")
        assert address == url
        origin, _ = parse_origin(url.partition("?")[0])
        assert url.lower().startswith("https://") or (url.lower().startswith("http://") and origin.loopback)
        assert urlsplit(url).hostname == origin.host
        assert not set(url) & set(SHELL)
