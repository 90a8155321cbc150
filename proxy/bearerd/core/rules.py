r"""Which calls a route lets through, by method and by path. In doubt, a call is refused.

The path goes upstream as the client wrote it, and an upstream may read it otherwise: decode it once or twice, take
`\` or `%2F` for a slash, drop `;x`, resolve `..`, ignore case. So a path is judged only if all readers agree on what it
says (RFC 3986 section 6.2), and any other is refused where there are rules on paths. What they may still differ in is
`%2F`, case and a slash at the end: `deny` holds for a path that is meant in one of these readings, `allow` only for one
that is meant in all of them.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from bearerd.core.headers import RawHeaders
from bearerd.core.problems import Problem
from bearerd.core.queries import has_parameter

READ_ONLY: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
_HOW: Final = 'write it like "/admin/**" or "DELETE /v1/files/*"'
_PLAIN: Final = (
    "has . or .. or nothing between slashes, or a ?, #, ;, backslash, %25 or bad encoding in it; no call with such a path "
    "passes where there are rules, so take that out"
)

_SLASH: Final = re.compile(rb"%2[Ff]")
_ENCODED_SLASH: Final = "\0"  # cannot be in a path otherwise
_AMBIGUOUS: Final = re.compile(r"[%;\\?#]")  # decoded: a % is one that was encoded, or encodes nothing
_SPLIT: Final = re.compile(r"[/\0]")

_OVERRIDES: Final = frozenset({b"x-http-method-override", b"x-method-override", b"x-http-method"})
_OVERRIDE_PARAMETER: Final = b"_method"


@dataclass(frozen=True, slots=True)
class Rule:
    """Some paths, for some methods: for all of them where `methods` is empty. `text` is how it is written."""

    text: str
    methods: frozenset[str]
    paths: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a route lets pass: `methods` if there are any, nothing of `deny`, and of all else `allow` if there is any.

    `read_only` says that `methods` are those of that setting. `on_methods` is set where any of it is about methods.
    """

    methods: frozenset[str]
    read_only: bool
    allow: tuple[Rule, ...]
    deny: tuple[Rule, ...]
    on_methods: bool


def build_rules(
    *,
    methods: Iterable[str] = (),
    read_only: bool = False,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
) -> Rules | None:
    """The rules as they are written, or None where there are none. Raises ValueError as `parse_rule` does."""
    allowed = tuple(parse_rule(text) for text in allow)
    denied = tuple(parse_rule(text, wide=True) for text in deny)
    named = READ_ONLY if read_only else frozenset(methods)
    if not (named or allowed or denied):
        return None
    on_methods = bool(named) or any(rule.methods for rule in allowed + denied)
    return Rules(named, read_only, allowed, denied, on_methods)


def parse_rule(text: str, *, wide: bool = False) -> Rule:
    """A rule from its written form: methods, if it is not for all of them, and a pattern, with spaces between.

    `*` stands for anything within a segment, `/**` at the end for nothing or a slash and anything. A `wide` rule takes
    in any case, a slash more or less at the end, and HEAD where it has GET. Raises ValueError with the cure.
    """
    *words, pattern = text.split(" ")
    if not pattern.startswith("/"):
        raise ValueError(f"names no path that begins with a slash; {_HOW}")
    for word in words:
        parse_method(word)
    methods = frozenset(words) | ({"HEAD"} if wide and "GET" in words else frozenset())
    return Rule(text, methods, _compile(pattern, wide=wide))


def parse_method(word: str) -> str:
    """A method as it is on the wire. Raises ValueError with the cure."""
    if not _METHOD.fullmatch(word):
        raise ValueError(f"{word!r} is not a method; write methods in capitals, with one space between them")
    return word


def _compile(pattern: str, *, wide: bool) -> re.Pattern[str]:
    stem, rest = (pattern[:-3], "(?:/.*)?") if pattern.endswith("/**") else (pattern, "")
    if "**" in stem:
        raise ValueError('has ** elsewhere than at the end, after a slash; write it like "/admin/**"')
    if _SLASH.search(stem.encode()):
        raise ValueError("has %2F in it, which is judged as a slash as well; write a slash or * there")
    if not read_path((stem + "/x" * bool(rest)).replace("*", "x").encode()):
        raise ValueError(_PLAIN)
    star = "[^/]*" if wide or not stem.endswith("/*") else "[^/]+"  # an allowed segment is there
    if wide and not rest:
        stem, rest = stem.rstrip("/"), "/?"
    first, *pieces = (_literal(piece, wide=wide) for piece in stem.split("*"))
    # Each piece but the last is taken where it first comes, and never looked for again: no path takes long.
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[:-1])
    last = star + pieces[-1] if pieces else ""
    return re.compile(first + middle + last + rest, re.DOTALL)


def _literal(piece: str, *, wide: bool) -> str:
    text = unquote_to_bytes(piece).decode()
    return re.escape(_fold(text) if wide else text)


def _fold(text: str) -> str:
    """The same for all texts that differ in case, in whichever direction a reader folds it, by short tables or long."""
    return text.upper().casefold().replace("i\u0307", "i")


def read_path(path: bytes) -> tuple[str, ...]:
    """The ways to read `path`, decoded: one, or two where it has an encoded slash. None where readers would differ."""
    parts = [_decode(part) for part in _SLASH.split(path)]
    known = [part for part in parts if part is not None]
    text = _ENCODED_SLASH.join(known)
    if len(known) < len(parts) or not _is_normal(_SPLIT.split(text)[1:]):
        return ()
    return (text,) if len(parts) == 1 else (text, text.replace(_ENCODED_SLASH, "/"))


def _decode(part: bytes) -> str | None:
    """None for what is not UTF-8, or could be decoded, cut or normalised further."""
    try:
        text = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        return None
    plain = text.isprintable() and unicodedata.is_normalized("NFKC", text)
    return text if plain and not _AMBIGUOUS.search(text) else None


def _is_normal(segments: list[str]) -> bool:
    """Whether the segments stay as they are: none is empty but the last, is or ends in a dot, or has a space at an end."""
    return all(segments[:-1]) and not any(part.endswith(".") or part != part.strip() for part in segments)


def judge(rules: Rules, method: str, target: bytes, headers: RawHeaders) -> Problem | None:
    """What speaks against a call, or None. `target` is what follows the route's prefix, with its query."""
    if rules.methods and method not in rules.methods:
        return _refused_method(rules)
    if rules.on_methods and overrides_method(target, headers):
        return _OVERRIDDEN
    return _judge_path(rules, method, target.partition(b"?")[0]) if rules.allow or rules.deny else None


def overrides_method(target: bytes, headers: RawHeaders) -> bool:
    """Whether an upstream might take the call for one with another method. Many read an underscore as a hyphen."""
    if b"?" in target and has_parameter(target, _OVERRIDE_PARAMETER):
        return True
    return any(name.lower().replace(b"_", b"-") in _OVERRIDES for name, _ in headers)


def _judge_path(rules: Rules, method: str, path: bytes) -> Problem | None:
    readings = read_path(path or b"/")
    if not readings:
        return _AMBIGUOUS_PATH
    for rule in rules.deny:
        if any(_is_in(rule, method.upper(), _fold(reading)) for reading in readings):
            detail = f"deny of the route has {rule.text}, which takes this call in"
            return Problem(403, "refused_by_deny", detail, _DENIED)
    if rules.allow and not all(any(_is_in(rule, method, text) for rule in rules.allow) for text in readings):
        return _NOT_ALLOWED
    return None


def _is_in(rule: Rule, method: str, path: str) -> bool:
    return (not rule.methods or method in rule.methods) and rule.paths.fullmatch(path) is not None


def _refused_method(rules: Rules) -> Problem:
    setting = "read_only" if rules.read_only else "methods"
    detail = f"{setting} of the route lets only {', '.join(sorted(rules.methods))} pass"
    return Problem(403, f"refused_by_{setting}", detail, _DENIED)


_DENIED: Final = "http_request_denied"
_OVERRIDDEN: Final = Problem(
    403,
    "method_override",
    "the call asks for another method than its own (X-HTTP-Method-Override or the like, or _method in the query), and "
    "the route has rules on methods; send it with the method that is meant",
    _DENIED,
)
_AMBIGUOUS_PATH: Final = Problem(
    403,
    "ambiguous_path",
    "the path could be read in several ways, and the route has rules on paths (allow, deny); send it without //, . and "
    ".. segments, backslashes, semicolons, %25 and control characters, in UTF-8",
    _DENIED,
)
_NOT_ALLOWED: Final = Problem(
    403,
    "refused_by_allow",
    "allow of the route has no rule that takes this call in; add one, if it is to pass",
    _DENIED,
)
