"""What Prometheus would have of a daemon."""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from callers import Listening, connected

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"

Samples = Mapping[str, float]
"""Values by name and labels, written as in the text format."""


async def scrape(daemon: Listening, accept: str = "") -> tuple[str, str]:
    """Media type and text, from the port of the calls."""
    async with connected(daemon) as client:
        client.write("GET /-/metrics HTTP/1.1", f"Accept: {accept}")
        head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    (kind,) = (
        line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-type:")
    )
    return kind.decode(), body.decode()


def parse(kind: str, text: str) -> list[Metric]:
    """Strictly, if it is OpenMetrics."""
    return list((parse_openmetrics if kind.startswith("application/openmetrics-text") else parse_text)(text))


def samples_of(families: Iterable[Metric]) -> Samples:
    return {
        sample.name + "{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}": sample.value
        for family in families
        for sample in family.samples
    }


async def read_samples(daemon: Listening) -> Samples:
    return samples_of(parse(*await scrape(daemon)))
