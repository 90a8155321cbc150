"""What we ship for Grafana and Prometheus asks for nothing that a daemon does not have."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from bearerd.cli import COMMANDS
from bearerd.core.configuration import Logging
from callers import connected, running
from promql import BadQueryError, Query, parse_query
from scrapes import parse, scrape

CONFIG: Final = Path(__file__).parent.parent / "config"
ALERTS: Final = (CONFIG / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
DASHBOARD: Final[dict[str, Any]] = json.loads(
    (CONFIG / "grafana" / "bearerd.json").read_text(encoding="utf-8")
)
EXPRESSIONS: Final = re.findall(r"(?m)^ {8}expr: (.+)$", ALERTS)
OF_PROMETHEUS: Final = {"instance", "job"}
_RULE: Final = re.compile(
    r"""(?x)
    [ ]{6}-\ alert:\ (?P<name>Bearerd[A-Za-z]+)\n
    [ ]{8}expr:\ (?P<expr>[^\n#"']+(?:"[^\n"]*"[^\n#"']*)*)\n
    (?:[ ]{8}for:\ [0-9]+m\n)?
    [ ]{8}labels:\n
    [ ]{10}severity:\ (?:warning|critical)\n
    [ ]{8}annotations:\n
    [ ]{10}summary:\ (?P<summary>[^\n]+)\n
    [ ]{10}description:\ (?P<description>[^\n]+)\n
    """
)


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def series(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, set[str]]]:
    """All that a real daemon has: by name, the type of its family and its labels."""
    log = Logging(audit=str(tmp_path_factory.mktemp("log") / "audit"))
    async with running("http://127.0.0.1:9", log=log) as daemon:
        async with connected(daemon) as client:
            client.write("GET / HTTP/1.1", "Origin: http://evil.test")
            await client.problem()
        families = parse(*await scrape(daemon))
    found = {
        sample.name: (family.type, set(sample.labels)) for family in families for sample in family.samples
    }
    return found | {"bearerd_connections_refused_total": ("counter", {"reason"})}  # of which there was none


@pytest.mark.parametrize("text", [*EXPRESSIONS, *queries()])
def test_a_query_uses_what_there_is(text: str, series: Mapping[str, tuple[str, set[str]]]) -> None:
    query: Query = parse_query(text)
    assert query.series
    labels: set[str] = set()
    for name, used in query.series.items():
        assert name in series
        assert used <= series[name][1] | OF_PROMETHEUS
        labels |= series[name][1]
    assert query.grouped <= labels | OF_PROMETHEUS
    for name in query.counted:
        assert series[name][0] in {"counter", "histogram"}


def test_rates_are_asked_of_counters_only() -> None:
    with_rate = {name for text in (*EXPRESSIONS, *queries()) for name in parse_query(text).counted}
    assert all(name.endswith(("_total", "_bucket")) for name in with_rate)
    plain = {name for text in (*EXPRESSIONS, *queries()) for name in parse_query(text).series} - with_rate
    assert not any(name.endswith(("_total", "_bucket")) for name in plain)


def test_every_metric_of_ours_is_on_the_dashboard(series: Mapping[str, tuple[str, set[str]]]) -> None:
    shown = {re.sub("_bucket$", "", name) for text in queries() for name in parse_query(text).series}
    ours = {
        re.sub("_(bucket|count|sum)$", "", name) if series[name][0] == "histogram" else name
        for name in series
        if name.startswith("bearerd_")
    }
    assert ours - shown == set()


def test_the_rules_are_all_of_one_form() -> None:
    """So that they can be read without a library for YAML. Prometheus' own tool reads them in the soak tests."""
    head, *groups = re.split(r"(?m)^groups:\n  - name: bearerd\n    rules:\n", ALERTS)
    assert all(line.startswith("#") for line in head.splitlines())
    (body,) = groups
    rules = [_RULE.fullmatch(rule) for rule in re.split(r"\n(?=      - )", body)]
    assert all(rules)
    names = [rule["name"] for rule in rules if rule]
    assert len(set(names)) == len(names) == len(EXPRESSIONS)
    for rule in rules:
        assert rule is not None
        for text in (rule["summary"], rule["description"]):
            assert re.fullmatch(r'"[^"\\]+"|[^"#:]+', re.sub(r"\{\{ \$labels\.(\w+) \}\}", "", text)), text
            used = set(re.findall(r"\$labels\.(\w+)", text))
            query = parse_query(rule["expr"])
            if query.grouped:
                assert used <= query.grouped


def test_a_bearerd_command_that_an_alert_names_exists() -> None:
    named = re.findall(r'(?m)description: "[^"\n]*: bearerd (\w+)', ALERTS)
    assert named
    assert set(named) <= set(COMMANDS)


def test_the_dashboard_can_be_laid_out() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or above
    assert all(0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"] for panel in panels)


def test_the_dashboard_is_bound_to_no_place() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range", "__all"} <= variables
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references)
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rate(x)",
        "x[5m]",
        "rate(x[5 m])",
        "rate(x[5m]",
        "sum by (le (x)",
        "histogram_quantile(x)",
        "x{a=b}",
        "x{a='b'}",
        "x ==",
        "1 and x",
        "nothing(x)",
        "x y",
        "x # y",
    ],
)
def test_what_is_no_query_is_found_out(text: str) -> None:
    with pytest.raises(BadQueryError):
        parse_query(text)


def test_what_is_read_of_a_query() -> None:
    query = parse_query(
        'sum by (a, le) (rate(x_total{b="1", c=~"y"}[$__rate_interval])) / 2 > 0.5 unless on (a) z == 1'
    )
    assert query.series == {"x_total": {"b", "c"}, "z": set()}
    assert query.grouped == {"a", "le"}
    assert query.counted == {"x_total"}
