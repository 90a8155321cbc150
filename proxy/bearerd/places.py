"""Where the configuration is: one rule for those who read it and for those who only ask which one it is.

`bearerd token` imports this, so it needs little more than the standard library.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from platformdirs import user_cache_dir, user_config_dir

CONFIG_VARIABLE: Final = "BEARERD_CONFIG"


def default_path() -> Path:
    """The file that is read where no other is named."""
    return Path(user_config_dir("bearerd", appauthor=False), "bearerd.toml")


def spool_folder() -> Path:
    """Where bodies are kept that memory is too small for. Not in the runtime folder, which is in memory itself."""
    return Path(user_cache_dir("bearerd", appauthor=False), "bodies")


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: `path`, or what the variable names, or the default one, which alone may be absent."""
    named = next((value for name, value in environ.items() if name.upper() == CONFIG_VARIABLE), None)
    if path or named is not None:
        return path or Path(str(named))
    default = default_path()
    return default if os.path.lexists(default) else None
