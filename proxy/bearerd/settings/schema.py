"""The file as a JSON Schema (draft 2020-12), for editors. It says of each value by itself what the model says.

What spans several settings, and what a pattern cannot say well, is left to `bearerd config check`: where the two differ,
the schema is the one that lets pass.
"""

from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator
from pydantic.fields import FieldInfo

from bearerd.core.field_rules import check_field_name
from bearerd.core.proxies import parse_proxy
from bearerd.core.rules import parse_method
from bearerd.settings import values
from bearerd.settings.documentation import NOTHING, Section
from bearerd.settings.model import NAMED, SINGLE, Table

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS: Final = (
    {"ge": "minimum", "le": "maximum", "min_length": "minLength"},
    {"min_length": "minItems"},
)
_NUL_FREE: Final = r"[^\u0000]+"
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_IPV6: Final = "[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_NAME: Final = r"(?:[A-Za-z0-9_][A-Za-z0-9_-]*\.)*[A-Za-z0-9_][A-Za-z0-9_-]*\.?"
_HOST: Final = rf"(?:\[{_IPV6}\]|{_NAME})"
_PORT: Final = r"(?::[0-9]{0,5})?"
_HTTP: Final = "[Hh][Tt][Tt][Pp]"
_ORIGIN: Final = f"{_HTTP}[Ss]?://{_HOST}{_PORT}"
_PATH: Final = r"(?:/[!\x22\x24-\x3e\x40-~]*)?"
_LOOPBACK: Final = rf"(?:[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127(?:\.{_OCTET}){{3}}|\[{_IPV6}\])"
_ENDPOINT: Final = (
    rf"(?:{_HTTP}[Ss]://{_HOST}|{_HTTP}://{_LOOPBACK}){_PORT}{_PATH}(?:\?[A-Za-z0-9._~%=&+/:@,-]*)?"
)
_FIELD: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PRINTABLE: Final = "[ -~]+"
_SCOPE: Final = r"[!#-\x5b\x5d-~]+"
_METHOD: Final = "[A-Z]+(?:-[A-Z]+)*"
_RULE: Final = rf"(?!.*[^/]\*\*)(?!.*\*\*.)(?:{_METHOD} )*/[^ ]*"
_SEGMENT: Final = r"(?!\.{1,2}(?:/|$))[!\x22\x24\x26-.0-\x3e\x40-\x5b\x5d-~]+"
_PREFIX: Final = rf"(?=/)(?!/-(?:/|$))(?:/{_SEGMENT})*/?"
_ACCOUNT: Final = "[a-z0-9](?:[a-z0-9.-]|_(?!_))*"
_CREDENTIAL: Final = rf"{_FIELD}:[^{{}}]*(?:\{{token\}}|\{{base64:[^{{}}]*\{{token\}}[^{{}}]*\}})[^{{}}]*"


def build_schema(sections: Mapping[str, Section]) -> Schema:
    """The schema of the whole file, with the descriptions and defaults of `sections`."""
    tables = {name: _table(table, sections[name]) for name, table in SINGLE.items()}
    for name, table in NAMED.items():
        names = _text(_ACCOUNT if name == "accounts" else _PREFIX)
        inner = _table(table, sections[name])
        tables[name] = {"type": "object", "propertyNames": names, "additionalProperties": inner}
    return {
        "$schema": DIALECT,
        "title": "Configuration of bearerd",
        "type": "object",
        "properties": {name: tables[name] for name in sections},
        "additionalProperties": False,
    }


def _table(table: type[Table], section: Section) -> Schema:
    hints = get_type_hints(table, include_extras=True)
    described = {"description": section.purpose} if section.purpose else {}
    keys: Schema = {}
    for key, info in table.model_fields.items():
        row = section.settings[key]
        keys[key] = {"description": row.text} | _narrow(hints[key], info.metadata)
        if row.value is not NOTHING and (row.value or "minItems" not in keys[key]):
            keys[key]["default"] = row.value
    needed = [key for key, info in table.model_fields.items() if info.is_required()]
    required = {"required": needed} if needed else {}
    return described | {"type": "object", "properties": keys, "additionalProperties": False} | required


def _shape(hint: Any) -> Schema:
    """The schema of a type of the model. What a validator lets pass stands for the type it is on."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return _narrow(inner, notes)
    if get_origin(hint) in {Union, UnionType}:
        (inner,) = (part for part in get_args(hint) if part is not NoneType)
        return _shape(inner)  # what is left out is not written as null: TOML has none
    if get_origin(hint) is list:
        return {"type": "array", "items": _shape(*get_args(hint))}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    return {"type": {bool: "boolean", int: "integer", str: "string"}[hint]}


def _narrow(inner: Any, notes: Sequence[Any]) -> Schema:
    notes = [part for note in notes for part in (note.metadata if isinstance(note, FieldInfo) else [note])]
    for note in reversed(notes):
        if isinstance(note, AfterValidator | BeforeValidator):
            return {**_SHAPES[note.func]}
    shape = _shape(inner)
    for note in notes:
        for bound, keyword in _BOUNDS[shape.get("type") == "array"].items():
            if hasattr(note, bound):
                shape[keyword] = getattr(note, bound)
    return shape


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _both(*patterns: str) -> Schema:
    return {"type": "string", "allOf": [{"pattern": f"^(?:{pattern})$"} for pattern in patterns]}


def _either(*shapes: Schema) -> Schema:
    return {"anyOf": list(shapes)}


def _folded(text: str) -> str:
    """A pattern of `text` in any case."""
    return "".join(f"[{char.upper()}{char}]" if char.isalpha() else char for char in text)


_SHAPES: Final[dict[Callable[..., Any], Schema]] = {
    values.parse_duration: _either(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
        _text(r"(?![0.]+ ?(?:ms|s|m|h)?$)[0-9]{1,9}(?:\.[0-9]{1,9})? ?(?:ms|s|m|h)?"),
    ),
    values.parse_size: _either({"type": "integer", "minimum": 0}, _text("[0-9]{1,18} ?(?:[KMG]i?B|B)?")),
    values.parse_address: _text(f"{_IPV4}|{_IPV6}"),
    values.parse_probes: _text(rf"(?:{_IPV4}|\[{_IPV6}\]):[0-9]{{1,5}}"),
    values.parse_key_field: _text(f"(?!{_folded('authorization')}$){_FIELD}"),
    values.parse_mode: _text("0?6[0246]{2}"),
    values.parse_uid: _either({"type": "integer", "minimum": 0, "maximum": 0xFFFFFFFE}, _text("[0-9]{1,10}")),
    values.parse_authority: _text(
        r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    ),
    values.parse_scope: _text(_SCOPE),
    values.parse_error_code: _text(_SCOPE),
    values.parse_upstream: _text(_ORIGIN + _PATH),
    values.parse_server_name: _text(_NAME),
    values.parse_endpoint: _text(_ENDPOINT),
    values.parse_page: _both(_ENDPOINT, r"[A-Za-z0-9._~%=&+/:@,?\[\]-]+"),
    values.parse_public_url: _text(_ORIGIN + "/*"),
    values.parse_web_origin: _text(
        rf"https?://{_HOST}{_PORT}|(?!https?:|file:)[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(?::[0-9]{{1,5}})?"
    ),
    values.parse_redirect_uri: _text(rf"{_ORIGIN}(?:/(?!\.{{1,2}}(?:/|$))[A-Za-z0-9._~-]*)*"),
    values.parse_parameters: {
        "type": "object",
        "propertyNames": {
            "pattern": "^[A-Za-z0-9._-]+$",
            "not": {"enum": sorted(values.OWN_PARAMETERS)},
        },
        "additionalProperties": _text(r"[^\u0000-\u001f\u007f]+"),
    },
    values.parse_protocol: _text(
        "(?!(?:{})(?:/|$)){field}(?:/{field})?".format(
            "|".join(map(_folded, sorted(values.NEVER))), field=_FIELD
        )
    ),
    values.parse_credential_text: _both(_CREDENTIAL, _PRINTABLE),
    values.parse_fields: {
        "type": "object",
        "propertyNames": {"pattern": f"^{_FIELD}$"},
        "additionalProperties": _text(r"(?!.*\{token\})[!-~](?:[ -~]*[!-~])?"),
    },
    values.parse_allow: _text(_RULE),
    values.parse_deny: _text(_RULE),
    values.parse_retry_status: _either(
        {"type": "integer", "minimum": 400, "maximum": 499}, _text("4[0-9]{2}")
    ),
    values.parse_variable: _text(f"(?!{_folded('bearerd_')})[A-Za-z_][A-Za-z0-9_]*(?:=/[A-Za-z0-9._~/-]*)?"),
    values.parse_resource: _both(
        r"[!\x22\x24-~]+",
        r"[A-Za-z][A-Za-z0-9+.-]*:(?://(?:(?:[^/?@[\]]|\[[0-9A-Fa-f:.]+\])+(?:[/?].*)?|/.*)|(?!//)[^?].*)",
    ),
    values.parse_argv: {
        "type": "array",
        "items": {"type": "string", "pattern": r"^[^\u0000]*$"},
        "prefixItems": [{"type": "string", "pattern": r"^(?=[\s\S]*\S)" + _NUL_FREE + "$"}],
        "minItems": 1,
    },
    values.parse_secret: _text(_PRINTABLE),
    values.parse_access_token: _text("[!-~]{1,32768}"),
    values.parse_key: _text(" *(?:[0-9A-Fa-f]{64}|[A-Za-z0-9+/_-]{43}=?) *"),
    values.parse_path: _text(_NUL_FREE),
    values.parse_token_path: _text(rf"(?!fd:){_NUL_FREE}|fd:[0-9]{{1,9}}"),
    check_field_name: _text(_FIELD),
    parse_method: _text(_METHOD),
    parse_proxy: _either(
        {"const": "none"},
        _text(rf"(?:(?:http|HTTP)://)?(?:[^/?#@]*@)?{_HOST}{_PORT}/?"),
    ),
}
"""What each parser of the model lets pass. In ECMA 262's dialect, which Python's is a superset of here."""
