"""How the keys of a route's table make its rules on fields."""

from collections.abc import Iterator

from bearerd.core.field_rules import FieldRules, build_field_rules, canonical, parse_credential
from bearerd.settings.files import Problem
from bearerd.settings.model import RouteTable


def check_fields(table: RouteTable) -> Iterator[Problem]:
    """What is wrong with how the keys of a table go together."""
    carrier = canonical(parse_credential(table.credential).name)
    added: dict[bytes, str] = {}
    for name in table.headers:
        if _plain(name) == carrier:
            yield "headers", f"{name} carries the token; take it out, or name another field in credential"
        elif _plain(name) in added:
            yield "headers", f"{name} is the same field as {added[_plain(name)]}; keep one of them"
        added[_plain(name)] = name
    for name in table.drop_headers:
        if _plain(name) == carrier:
            yield "drop_headers", f"{name} carries the token, and the client's is dropped anyway; take it out"
        elif _plain(name) in added:
            yield "drop_headers", f"{name} is in headers too, which replaces the client's; keep one of them"


def _plain(name: str) -> bytes:
    return canonical(name.encode("ascii"))


def build_fields(table: RouteTable) -> FieldRules:
    """The rules of a table without problems."""
    return build_field_rules(
        parse_credential(table.credential),
        if_absent=table.inject == "if-absent",
        added=[(name.encode("ascii"), value.encode("ascii")) for name, value in table.headers.items()],
        dropped=[name.encode("ascii") for name in table.drop_headers],
        forwarded=table.forwarded,
    )
