"""Whether and how a browser is opened: one program with one address, and never a shell."""

from collections.abc import Callable, Mapping

from bearerd.core.metadata import check_browser_url


def find_hindrance(platform: str, environ: Mapping[str, str]) -> str | None:
    """Why a browser opened here would not be seen by the person, or None."""
    if environ.get("BROWSER"):
        return None
    if environ.get("SSH_CONNECTION"):
        return "this is a remote session"
    if platform == "linux" and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return "there is no display here"
    return None


def build_opener(
    url: str, platform: str, environ: Mapping[str, str], which: Callable[[str], str | None]
) -> list[str] | None:
    """The program that opens `url` and its arguments, or None where there is none.

    `BROWSER` is the name of one program here, not the list of command lines that some read in it. `which` finds
    programs. Raises ValueError for what is not fit to be opened.
    """
    check_browser_url(url)
    names = [environ["BROWSER"]] if environ.get("BROWSER") else []
    names += {"darwin": ["open"], "win32": ["explorer.exe"]}.get(platform, ["xdg-open"])
    programs = (which(name) for name in names)
    return next(([program, url] for program in programs if program), None)
