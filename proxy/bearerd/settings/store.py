"""From the table of the store to the store: where the vault is, and where its key is from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from platformdirs import user_data_dir

from bearerd.core.configuration import Store
from bearerd.places import default_path
from bearerd.settings.files import PathOf, Problem, load_secret
from bearerd.settings.model import KeySourceName, StoreTable
from bearerd.settings.values import parse_key

_KEYS: Final[dict[str, frozenset[str]]] = {
    "auto": frozenset(),
    "keychain": frozenset(),
    "file": frozenset({"key_file"}),
    "secret": frozenset({"key_secret", "key_secret_file"}),
}
_TELLING: Final[dict[str, KeySourceName]] = {
    "key_secret": "secret",
    "key_secret_file": "secret",
    "key_file": "file",
}


def find_unfit(table: StoreTable, ranks: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Each key that a more specific source rules out, and that source's key which does.

    `ranks` has the source of each key, the most specific one lowest. Keys of one source are not held against each
    other: that is a mistake and no choice.
    """
    kept: list[str] = []
    for key in sorted(table.model_fields_set, key=lambda key: (ranks[key], key)):
        ruling = (other for other in kept if ranks[other] < ranks[key] and _clash(table, other, key))
        if other := next(ruling, None):
            yield key, other
        else:
            kept.append(key)


def _clash(table: StoreTable, one: str, other: str) -> bool:
    pair = {one, other}
    if "kind" in pair:
        return table.kind == "memory"
    if "path" in pair:
        return False
    if "key_source" in pair:
        return not pair <= {"key_source"} | _KEYS[str(table.key_source)]
    return True  # each of the others is a key by itself


def settle_store(table: StoreTable) -> StoreTable:
    """The table with what is left out filled in: the source of the key as the other keys decide it, and paths."""
    source = table.key_source or next(
        (source for key, source in _TELLING.items() if key in table.model_fields_set), "auto"
    )
    path = table.path or str(Path(user_data_dir("bearerd", appauthor=False), "vault"))
    key_file = table.key_file or str(default_path().with_name("vault.key"))
    return table.model_copy(update={"key_source": source, "path": path, "key_file": key_file})


def used_keys(settled: StoreTable) -> frozenset[str]:
    """The keys that go with the kind of store and the source of its key."""
    if settled.kind == "memory":
        return frozenset({"kind"})
    return frozenset({"kind", "path", "key_source"}) | _KEYS[str(settled.key_source)]


def check_store(table: StoreTable, settled: StoreTable) -> Iterator[Problem]:
    """What is wrong with how the keys of the table go together."""
    given = table.model_fields_set
    used = used_keys(settled)
    chosen = "kind" if settled.kind == "memory" else "key_source"
    for key in sorted(given - used):
        value = getattr(settled, chosen)
        yield key, f'does not belong to {chosen} = "{value}"; take it out or choose another {chosen}'
    if used >= _KEYS["secret"]:
        yield from _check_secret(given)


def _check_secret(given: set[str]) -> Iterator[Problem]:
    if given >= _KEYS["secret"]:
        yield "key_secret", "is set, and so is key_secret_file; keep one of them"
    elif not given & _KEYS["secret"]:
        yield "key_secret", "is missing; set it or key_secret_file"


def build_store(settled: StoreTable, path_of: PathOf) -> Store:
    """The store of a settled table without problems. Raises Invalid for a secret file that cannot be used.

    Neither the vault nor a key file need be there yet, so neither is looked at.
    """
    used = used_keys(settled)
    return Store(
        kind=settled.kind,
        path=_absolute("path", settled.path, path_of) if "path" in used else "",
        key_source=str(settled.key_source),
        key_file=_absolute("key_file", settled.key_file, path_of) if "key_file" in used else "",
        key_secret=settled.key_secret
        or load_secret("key_secret_file", settled.key_secret_file, path_of, parse_key),
    )


def _absolute(key: str, text: str | None, path_of: PathOf) -> str:
    """A full path: whoever shares the vault shall name it alike."""
    return str(path_of(key, str(text)).absolute())
