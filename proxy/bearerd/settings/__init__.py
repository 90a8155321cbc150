"""Settings: flags, environment and file become the plain `Configuration`, or a line for each problem."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bearerd.core.configuration import Configuration
from bearerd.errors import NotConfigured
from bearerd.places import default_path, find_file
from bearerd.settings.effective import (
    Setting,
    build_configuration,
    drop_unfit,
    list_settings,
    list_warnings,
    settle_all,
    validate,
)
from bearerd.settings.model import NAMED
from bearerd.settings.problems import Problems
from bearerd.settings.sources import Values, read_environment, read_file, read_flags
from bearerd.settings.ways import read_proxies

__all__ = ["Loaded", "Setting", "load"]

_NOT_CONFIGURED: Final = """\
there is no configuration; write one with: bearerd init, or by hand to {path}, or try: bearerd demo
this is enough to begin with:
  [accounts.work]
  grant = "client_credentials"
  issuer = "https://login.example.com"
  client_id = "my-client"
  client_secret_file = "/run/secrets/my-client"
  [routes."/"]
  upstream = "https://api.example.com/v1\""""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it is from: the file, or None, and each setting's source."""

    configuration: Configuration
    path: Path | None
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]


def load(path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> Loaded:
    """The configuration of flags, variables and file, in this order of precedence.

    Flags are `port`, `log_level` and `upstream`, a tuple of ``URL`` or ``/prefix=URL``. Files that hold secrets
    are read here, but for `token_file`. Raises ConfigError; NotConfigured where no account and no route is given.
    """
    problems = Problems()
    file = find_file(path, environ)
    values = read_file(file, problems) if file else {}
    values |= read_environment(environ, values, problems)
    values |= read_flags(flags, values, problems)
    values |= read_proxies(environ, values)
    if file is None and not _configures(values):
        problems.check()
        raise NotConfigured(_NOT_CONFIGURED.format(path=default_path()))
    kept, ignored = drop_unfit(validate(values, problems), values)
    settings = validate(kept, problems)
    settled = settle_all(settings)
    configuration = build_configuration(settings, settled, kept, problems)
    return Loaded(
        configuration,
        file,
        tuple(list_settings(settled, kept)),
        (*ignored, *list_warnings(configuration, values)),
    )


def _configures(values: Values) -> bool:
    return any(path[0] in NAMED for path in values)
