"""PromQL as far as our dashboard and alerts use it, read strictly: what is not known here is an error."""

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

DURATION: Final = r"(?:[0-9]+(?:ms|[smhdwy]))+|\$__rate_interval|\$__range"
_TOKENS: Final = re.compile(
    rf"""(?x)\s*(?:
        (?P<range>\[(?:{DURATION})\])
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z_.]))
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%<>=(){{}},])
    )"""
)
_BINARY: Final = (
    ("or",),
    ("and", "unless"),
    ("==", "!=", ">", "<", ">=", "<="),
    ("+", "-"),
    ("*", "/", "%"),
)
_SETS: Final = {"and", "or", "unless"}
_FUNCTIONS: Final = {  # what they take and give: s a scalar, v a vector, r a range
    "rate": ("r", "v"),
    "increase": ("r", "v"),
    "changes": ("r", "v"),
    "absent": ("v", "v"),
    "time": ("", "s"),
    "histogram_quantile": ("sv", "v"),
}
_COUNTERS_ONLY: Final = {"rate", "increase"}
_AGGREGATIONS: Final = {"sum", "min", "max", "count", "avg"}


class BadQueryError(ValueError):
    """Not a query that Prometheus would take, or one that we have no need of."""


@dataclass
class Query:
    """What a query is about. `grouped` are labels that it groups by; `counted` are series that are taken for counters."""

    series: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)


def parse_query(text: str) -> Query:
    """Raises BadQueryError."""
    parser = _Parser(text)
    kind = parser.expression(0)
    if parser.peek() != ("end", ""):
        parser.fail()
    if kind == "r":
        raise BadQueryError(f"a range is no result: {text}")
    return parser.query


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_split(text))
        self._place = 0
        self.query = Query()

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._place]

    def take(self, kind: str, value: str | None = None) -> str:
        found = self.peek()
        if found[0] != kind or (value is not None and found[1] != value):
            self.fail()
        self._place += 1
        return found[1]

    def takes(self, value: str) -> bool:
        if self.peek()[1] != value or self.peek()[0] not in {"name", "sign"}:
            return False
        self._place += 1
        return True

    def fail(self) -> NoReturn:
        raise BadQueryError(f"{self.peek()[1]!r}, token {self._place}, is not expected in: {self._text}")

    def expression(self, level: int) -> str:
        if level == len(_BINARY):
            return self.operand()
        kind = self.expression(level + 1)
        while self.peek()[0] in {"name", "sign"} and self.peek()[1] in _BINARY[level]:
            operator = self.peek()[1]
            self._place += 1
            if self.takes("on") or self.takes("ignoring"):
                self.labels()
            other = self.expression(level + 1)
            if "r" in kind + other or (operator in _SETS and kind + other != "vv"):
                self.fail()
            kind = "v" if "v" in kind + other else "s"
        return kind

    def operand(self) -> str:
        if self.takes("("):
            kind = self.expression(0)
            self.take("sign", ")")
            return kind
        if self.peek()[0] == "number":
            self.take("number")
            return "s"
        name = self.take("name")
        if name in _AGGREGATIONS:
            return self.aggregation()
        if name in _FUNCTIONS:
            return self.function(name)
        return self.selector(name)

    def aggregation(self) -> str:
        if self.takes("by"):
            self.labels()
        self.take("sign", "(")
        if self.expression(0) != "v":
            self.fail()
        self.take("sign", ")")
        return "v"

    def function(self, name: str) -> str:
        takes, gives = _FUNCTIONS[name]
        before = set(self.query.series)
        self.take("sign", "(")
        for place, kind in enumerate(takes):
            if place:
                self.take("sign", ",")
            if self.expression(0) != kind:
                self.fail()
        self.take("sign", ")")
        if name in _COUNTERS_ONLY:
            self.query.counted |= self.query.series.keys() - before
        return gives

    def selector(self, name: str) -> str:
        used = self.query.series.setdefault(name, set())
        if self.takes("{"):
            while not self.takes("}"):
                used.add(self.take("name"))
                if not any(self.takes(sign) for sign in ("=", "=~", "!=", "!~")):
                    self.fail()
                self.take("string")
                if self.peek()[1] != "}":
                    self.take("sign", ",")
        if self.peek()[0] == "range":
            self.take("range")
            return "r"
        return "v"

    def labels(self) -> None:
        self.take("sign", "(")
        while not self.takes(")"):
            self.query.grouped.add(self.take("name"))
            if self.peek()[1] != ")":
                self.take("sign", ",")


def _split(text: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        found = _TOKENS.match(text, place)
        if found is None:
            raise BadQueryError(f"{text[place:]!r} begins with nothing that is known")
        tokens.append((str(found.lastgroup), str(found[str(found.lastgroup)])))
        place = found.end()
    return [*tokens, ("end", "")]
