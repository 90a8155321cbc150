"""Files that come with bearerd beside its code: presets, units, and what the documentation says of each setting.

Whoever is installed has them in the package, whoever runs the project from its own folder where they are written. They are plain files: bearerd is not
run from a zip archive, where nothing compiled can be loaded from, and much of what it is built on is compiled.
"""

from pathlib import Path
from typing import Final

from bearerd.errors import BearerdError

SOURCES: Final = {
    "providers": "config/providers",
    "units": "config/systemd/user",
    "configuration.md": "docs/configuration.md",
}
"""Names in the package, and where the project has them: the build, in pyproject.toml, goes by the same list."""

_PACKAGE: Final = Path(__file__).parent


def find_shipped(name: str, package: Path = _PACKAGE) -> Path:
    """The file or folder of that name in SOURCES. Raises BearerdError where an installation lacks it."""
    built, source = package / name, package.parent.parent / SOURCES[name]
    for path in (built, source):
        if path.exists():
            return path
    raise BearerdError(f"{built} is missing; install bearerd again")
