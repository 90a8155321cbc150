"""From the tables of the file to where clients connect and by which keys they are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from platformdirs import user_data_dir

from bearerd.core.configuration import Keys, Listen
from bearerd.settings.files import PathOf, Problem
from bearerd.settings.model import KeysTable, ListenTable

FILE_NAME: Final = "client-keys.json"


def _remote_hosts(table: ListenTable) -> tuple[str, ...]:
    return Listen(hosts=tuple(table.hosts)).remote_hosts


def settle_keys(table: KeysTable, listen: ListenTable) -> KeysTable:
    """The table with what is left out filled in. Where other machines can connect, nobody calls without a key."""
    use = table.use or ("required" if _remote_hosts(listen) else "off")
    file = table.file or str(Path(user_data_dir("bearerd", appauthor=False), FILE_NAME))
    return table.model_copy(update={"use": use, "file": file})


def check_remote(listen: ListenTable) -> Iterator[Problem]:
    """What is wrong with the addresses. None but this machine's own is listened on by mistake."""
    for host in _remote_hosts(listen):
        if not listen.remote:
            text = (
                f"{host!r} is not a loopback address, so other machines could connect; use 127.0.0.1 or ::1, or set "
                "listen.remote = true and make client keys with: bearerd key create"
            )
            yield "hosts", text


def check_keys(table: KeysTable, listen: ListenTable) -> Iterator[Problem]:
    """What is wrong with how the keys of the tables go together."""
    if table.use in {"off", "optional"} and _remote_hosts(listen):
        yield "use", f'is "{table.use}", and listen.hosts lets other machines connect; make it "required"'


def build_keys(settled: KeysTable, path_of: PathOf) -> Keys:
    """Of a settled table without problems. The file need not be there yet, so it is not looked at."""
    return Keys(str(settled.use), str(path_of("file", str(settled.file)).absolute()), tuple(settled.fields))
