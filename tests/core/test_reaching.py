"""Where a daemon is asked how it is."""

from typing import Any

import pytest

from bearerd.core.reaching import Target, choose_target


@pytest.mark.parametrize(
    ("table", "environ", "expected"),
    [
        ({}, {}, Target("127.0.0.1", 6750)),
        ({"port": 7000}, {}, Target("127.0.0.1", 7000)),
        ({"port": 7000}, {"BEARERD_LISTEN__PORT": "7001"}, Target("127.0.0.1", 7001)),
        ({"port": 7000}, {"bearerd_listen__port": "7001"}, Target("127.0.0.1", 7001)),
        ({"hosts": ["::1"]}, {}, Target("::1", 6750)),
        ({"hosts": ["0.0.0.0"]}, {}, Target("127.0.0.1", 6750)),
        ({}, {"BEARERD_LISTEN__HOSTS": "::, 127.0.0.1"}, Target("::1", 6750)),
        ({}, {"BEARERD_LISTEN__HOSTS": '["::"]'}, Target("::1", 6750)),
        ({"port": 7000, "probes": "127.0.0.1:9450"}, {}, Target("127.0.0.1", 9450, prefix="")),
        ({"probes": "0.0.0.0:9450"}, {}, Target("127.0.0.1", 9450, prefix="")),
        ({}, {"BEARERD_LISTEN__PROBES": "[::]:9450"}, Target("::1", 9450, prefix="")),
        ({"hosts": [], "socket": "/run/b.sock"}, {}, Target(socket="/run/b.sock")),
        ({"hosts": [], "socket": "/x", "probes": "[::1]:1"}, {}, Target("::1", 1, prefix="")),
    ],
)
def test_by_settings(table: dict[str, Any], environ: dict[str, str], expected: Target) -> None:
    assert choose_target(table, environ) == expected


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"hosts": []}, "neither an address nor a socket"),
        ({"hosts": 5}, "neither an address nor a socket"),
        ({"hosts": "[x"}, "neither an address nor a socket"),
        ({"port": 0}, "with --port"),
        ({"port": "x"}, "is no port"),
        ({"port": 99999}, "is no port"),
        ({"probes": "nonsense"}, "is no port"),
    ],
)
def test_where_nobody_can_know(table: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        choose_target(table, {})


@pytest.mark.parametrize(
    ("target", "authority", "text"),
    [
        (Target("127.0.0.1", 1), "127.0.0.1:1", "127.0.0.1:1"),
        (Target("::1", 1), "[::1]:1", "[::1]:1"),
        (Target(socket="/x"), "localhost", "the socket /x"),
    ],
)
def test_names(target: Target, authority: str, text: str) -> None:
    assert (target.authority, str(target)) == (authority, text)
