"""What a collector has been sent: OpenTelemetry's protocol in protobuf over HTTP, as `FaultServer` has recorded it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Sent:
    """One span as it came: ids in hexadecimal, instants in nanoseconds since the epoch; `failed` is its status."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_at: int
    ended_at: int
    flags: int
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]


def spans_of(requests: Iterable[bytes]) -> list[Sent]:
    """Those of all requests, in the order in which they began."""
    found = []
    for raw in requests:
        head, _, body = raw.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
        assert b"application/x-protobuf" in head
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for resource in message.resource_spans:
            assert _attributes(resource.resource.attributes)["service.name"]
            found += [_read(span) for scope in resource.scope_spans for span in scope.spans]
    return sorted(found, key=lambda span: span.began_at)


def _read(span: Any) -> Sent:
    return Sent(
        span.name,
        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.flags,
        span.status.code == span.status.STATUS_CODE_ERROR,
        _attributes(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
