"""Prometheus' own tool, Debian's promtool, on what we ship for Prometheus and on what it would scrape."""

import asyncio
import json
import re
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd.core.configuration import Logging
from callers import running
from scrapes import scrape

CONFIG: Final = Path(__file__).parents[2] / "config"
ALERTS: Final = CONFIG / "prometheus" / "alerts.yml"
OURS: Final = '{instance="a", account="work", route="/"'
REFRESHES: Final = 'bearerd_token_refreshes_total{instance="a", account="work", result='
EXPIRY: Final = 'bearerd_token_expiry_timestamp_seconds{instance="a", account="work"}'
# By alert: series of which one value a minute comes from the first on, and whether it fires in the 20th.
CASES: Final[list[tuple[str, dict[str, str], bool]]] = [
    ("BearerdGone", {"other": "1x20"}, True),
    ("BearerdGone", {"bearerd_ready": "0x20"}, False),
    ("BearerdNotReady", {'bearerd_ready{instance="a"}': "1x10 0x20"}, True),
    ("BearerdNotReady", {'bearerd_ready{instance="a"}': "1x18 0 1x5"}, False),
    ("BearerdLoginRequired", {'bearerd_login_required{instance="a", account="work"}': "0x5 1x20"}, True),
    ("BearerdLoginRequired", {'bearerd_login_required{instance="a", account="work"}': "0x30"}, False),
    (
        "BearerdRefreshFailing",
        {f'{REFRESHES}"transient"}}': "0+1x30", f'{REFRESHES}"succeeded"}}': "3x30"},
        True,
    ),
    (
        "BearerdRefreshFailing",
        {f'{REFRESHES}"transient"}}': "0+1x30", f'{REFRESHES}"succeeded"}}': "0+1x30"},
        False,
    ),
    (
        "BearerdRefreshFailing",
        {f'{REFRESHES}"postponed"}}': "0+1x30", f'{REFRESHES}"succeeded"}}': "3x30"},
        False,
    ),
    ("BearerdTokenNearExpiry", {EXPIRY: "1250x30"}, True),  # and the 20th minute ends before
    ("BearerdTokenNearExpiry", {EXPIRY: "2400x30"}, False),
    ("BearerdTokenNearExpiry", {EXPIRY: "50+60x30"}, False),  # a token of a minute, renewed each time
    ("BearerdTokenUnsaved", {'bearerd_token_unsaved{instance="a", account="work"}': "0x5 1x20"}, True),
    ("BearerdTokenUnsaved", {'bearerd_token_unsaved{instance="a", account="work"}': "0x30"}, False),
    ("BearerdReplaysRejected", {f'bearerd_replays_total{OURS}, result="rejected"}}': "0+1x30"}, True),
    ("BearerdReplaysRejected", {f'bearerd_replays_total{OURS}, result="accepted"}}': "0+9x30"}, False),
    (
        "BearerdUpstreamErrors",
        {
            f'bearerd_upstream_errors_total{OURS}, kind="closed"}}': "0+1x30",
            f'bearerd_requests_total{OURS}, code="5xx"}}': "0+9x30",
        },
        True,
    ),
    (
        "BearerdUpstreamErrors",
        {
            f'bearerd_upstream_errors_total{OURS}, kind="closed"}}': "0+1x30",
            f'bearerd_requests_total{OURS}, code="5xx"}}': "0+90x30",
        },
        False,
    ),
    ("BearerdReloadFailed", {'bearerd_config_last_reload_successful{instance="a"}': "1x5 0x20"}, True),
    ("BearerdReloadFailed", {'bearerd_config_last_reload_successful{instance="a"}': "0x5 1x20"}, False),
    ("BearerdConnectionsFull", {"bearerd_connections": "95x30", "bearerd_connections_limit": "100x30"}, True),
    ("BearerdConnectionsFull", {"bearerd_connections": "5x30", "bearerd_connections_limit": "100x30"}, False),
    ("BearerdAuditIncomplete", {'bearerd_audit_lines_lost_total{instance="a"}': "0x16 5x20"}, True),
    ("BearerdAuditIncomplete", {'bearerd_audit_lines_lost_total{instance="a"}': "5x30"}, False),
]


async def promtool(*words: str, stdin: str = "") -> str:
    """What it says. Fails where it is not content."""
    program = shutil.which("promtool")
    if program is None:
        raise RuntimeError("promtool is not installed and this test needs it: run make soak")
    process = await asyncio.create_subprocess_exec(program, *words, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate(stdin.encode())
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.soak
async def test_every_alert_fires_when_it_should_and_not_else(tmp_path: Path) -> None:
    rules = set(re.findall(r"alert: (\w+)", ALERTS.read_text(encoding="utf-8")))
    assert {(name, fires) for name, _, fires in CASES} == {
        (name, fires) for name in rules for fires in (True, False)
    }
    tests: list[dict[str, Any]] = []
    for name, series, fires in CASES:
        given = [{"series": each, "values": values} for each, values in series.items()]
        # It compares labels and texts too, which are not the point here: so whether there is one is asked of ALERTS.
        query = f'count(ALERTS{{alertname="{name}", alertstate="firing"}})'
        expected = [{"labels": "{}", "value": 1}] if fires else []
        tests.append(
            {
                "name": f"{name} {fires}",
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [{"expr": query, "eval_time": "20m", "exp_samples": expected}],
            }
        )
    file = tmp_path / "tests.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    assert "SUCCESS" in await promtool("test", "rules", str(file))


@pytest.mark.soak
async def test_the_dashboards_queries_are_prometheus_too(tmp_path: Path) -> None:
    dashboard = json.loads((CONFIG / "grafana" / "bearerd.json").read_text(encoding="utf-8"))
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    plain = [text.replace("$__rate_interval", "5m").replace("$__range", "1h") for text in texts]
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(plain)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in await promtool("check", "rules", str(file))


@pytest.mark.soak
async def test_it_has_nothing_against_our_metrics(tmp_path: Path) -> None:
    async with running("http://127.0.0.1:9", log=Logging(audit=str(tmp_path / "audit"))) as daemon:
        _, text = await scrape(daemon)
    assert await promtool("check", "metrics", stdin=text) == ""
