"""What a trace shows of a call: how often it was sent, where it waited for a token, what came of it.

Names are those of OpenTelemetry's semantic conventions for HTTP, where there are any. Nothing is in them that the access log has not:
no query, no field, no token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bearerd.core.calls import Asker, Entry
from bearerd.core.redaction import redact_text
from bearerd.core.targets import path_of
from bearerd.core.traces import Step, TraceContext, Trail

Kind = Literal["server", "client", "internal"]
Value = str | int | float | bool

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time. Instants are epoch seconds. `links` are places elsewhere that belong to it; `error` is the kind of
    what went wrong.
    """

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    began_at: float
    ended_at: float
    attributes: Mapping[str, Value]
    links: tuple[TraceContext, ...] = ()
    error: str | None = None


def build_spans(entry: Entry, trail: Trail, ended_at: float, offset_s: float) -> Iterator[Span]:
    """The spans of a call that was over at `ended_at` by the clock of its steps, which is `offset_s` behind the epoch's."""
    yield _build_call(entry, trail, trail.began_at + offset_s, ended_at + offset_s)
    sendings = [step for step in trail.steps if step.name == "upstream"]
    for step in trail.steps:
        passed_on = (
            step is trail.steps[-1] and step in sendings and entry.problem is None
        )  # with a body that came by and by
        step_ended_at = ended_at if step.ended_at is None or passed_on else step.ended_at
        yield _build_step(entry, trail, step, sendings, (step.began_at + offset_s, step_ended_at + offset_s))


def _build_step(
    entry: Entry, trail: Trail, step: Step, sendings: Sequence[Step], instants: tuple[float, float]
) -> Span:
    upstream = step.name == "upstream"
    attributes = _describe_attempt(entry, step, sendings.index(step)) if upstream else {}
    return Span(
        _method(entry) if upstream else "token wait",
        "client" if upstream else "internal",
        trail.context.at(step.span_id),
        trail.context,
        *instants,
        attributes | _name_account(entry.account),
        error=step.error or _fault(step.status, 400),
    )


def _build_call(entry: Entry, trail: Trail, began_at: float, ended_at: float) -> Span:
    head = entry.head
    attributes: dict[str, Value] = {
        "http.request.method": _method(entry),
        "url.scheme": "http",
        "url.path": redact_text(path_of(head.target).decode("latin-1")),
        "network.protocol.version": "{}.{}".format(*head.version),
        "bearerd.replayed": entry.replayed,
    }
    known = {
        "http.route": entry.route,
        "http.response.status_code": entry.status,
        "bearerd.request_id": head.request_id,
        "bearerd.problem": entry.problem,
        "bearerd.cut": entry.cut,
    }
    attributes |= {name: value for name, value in known.items() if value is not None}
    name = _method(entry) if entry.route is None else f"{_method(entry)} {entry.route}"
    error = entry.problem if (entry.status or 0) >= 500 else None
    return Span(
        name,
        "server",
        trail.context,
        trail.parent,
        began_at,
        ended_at,
        attributes | _name_account(entry.account),
        error=error or entry.cut or _fault(entry.status, 500),
    )


def build_refresh(
    account: str,
    context: TraceContext,
    askers: Sequence[TraceContext],
    began_at: float,
    ended_at: float,
    result: str,
    generation: int,
) -> Span:
    """A refresh that ended with `result`; a token of `generation` is in force now. It belongs to the first of those who waited."""
    parent = askers[0] if askers else None
    attributes: dict[str, Value] = {"bearerd.result": result, "bearerd.generation": generation}
    error = None if result in {"refreshed", "borrowed"} else result
    attributes |= _name_account(account)
    links = tuple(askers[1:])
    return Span("token refresh", "internal", context, parent, began_at, ended_at, attributes, links, error)


def build_login(account: str, context: TraceContext, began_at: float, ended_at: float, *, done: bool) -> Span:
    """A login, from when a person began it."""
    error = None if done else "failed"
    return Span("login", "internal", context, None, began_at, ended_at, _name_account(account), (), error)


def recorded(askers: Sequence[Asker]) -> tuple[TraceContext, ...]:
    """Where those wait whose way is recorded."""
    return tuple(asker.context for asker in askers if asker.context is not None)


def _describe_attempt(entry: Entry, step: Step, sent: int) -> dict[str, Value]:
    """`sent` is how often the call was sent before."""
    attributes: dict[str, Value] = {"http.request.method": _method(entry)}
    known = {
        "server.address": step.host,
        "server.port": step.port,
        "http.response.status_code": step.status,
        "http.request.resend_count": sent or None,
    }
    return attributes | {name: value for name, value in known.items() if value is not None}


def _name_account(account: str | None) -> dict[str, Value]:
    return {} if account is None else {"bearerd.account": account}


def _method(entry: Entry) -> str:
    return entry.head.method if entry.head.method in _METHODS else "_OTHER"


def _fault(status: int | None, least: int) -> str | None:
    """A status is an error from `least` on; the kind of error is the status then."""
    return str(status) if status is not None and status >= least else None
