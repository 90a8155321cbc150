import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from bench.__main__ import Comparison, choose
from bench.charts import LONGEST, Chart, draw, format_number, limit_of
from bench.contestants import ACCESS_LOG, CONTESTANTS, VARIANTS, prepare_bearerd, takes
from bench.figures import (
    DIRECT,
    LARGE_BUFFERS,
    BenchError,
    Load,
    Outcome,
    Row,
    Run,
    Stat,
    build_rows,
    family_of,
    parse_load,
    parse_stat,
    parse_wrk,
)
from bench.hotpath import OTHERS, REST, TOP, Cost, Stats, build_costs, build_costs_table, name_of
from bench.loads import Loader
from bench.machine import find_model, find_version
from bench.report import Report, build_charts, write_report
from bench.servers import answers, find_program, pinned, read_cpu_s, read_rss_mib, serve
from bench.tables import build_bar, build_section, build_tables
from bench.workloads import DOWN, ONE_MIB, SMALL, SOCKETS, STREAMS, UP, WORKLOADS

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and pins processes to cores")

WRK = """\
Running 5s test @ http://127.0.0.1:34567/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.01ms    2.33ms  30.40ms   93.15%
    Req/Sec    38.39k     4.51k   45.12k    66.00%
  Latency Distribution
     50%  432.00us
     75%  600.00us
     90%    1.80ms
     99%   10.43ms
  191234 requests in 5.10s, 30.27MB read
Requests/sec:  38239.10
Transfer/sec:      6.05MB
"""


def test_the_numbers_of_wrk_are_read() -> None:
    assert parse_wrk(WRK) == Load(191234, 5.1, 432.0, 10430.0)


def test_units_are_told_apart() -> None:
    text = WRK.replace("432.00us", "1.50s").replace("10.43ms", "2.00m").replace("in 5.10s", "in 1.00m")
    assert parse_wrk(text) == Load(191234, 60.0, 1.5e6, 1.2e8)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec"), "responses: 7"),
        (
            WRK.replace(
                "Requests/sec", "  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec"
            ),
            "read 3",
        ),
        (WRK.replace("  191234 requests", "  0 requests"), "no call was completed"),
        (WRK.replace("     99%   10.43ms\n", ""), "something else"),
        ("unable to connect to 127.0.0.1:34567 Connection refused\n", "unable to connect"),
        ("", "something else"),
    ],
)
def test_a_run_with_failures_is_no_result(text: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        parse_wrk(text)


def test_a_stat_line_is_read_whatever_the_program_is_called() -> None:
    numbers = "S 41 42 42 0 -1 4194560 100 0 0 0 11 22 3 4 20 0 1 0 500 1000 200"
    for name in ("nginx", "a b", ") S 1 (", "((", "12 (x) 13"):
        assert parse_stat(f"42 ({name}) {numbers}\n") == Stat(42, 41, 40, 200)


def test_descendants_count_and_strangers_do_not() -> None:
    stats = [Stat(12, 11, 100), Stat(10, 1, 1), Stat(11, 10, 10), Stat(13, 10, 1000), Stat(20, 1, 10_000)]
    assert sum(stat.ticks for stat in family_of(stats, 10)) == 1111
    assert family_of(stats, 99) == []


@linux_only
def test_the_cpu_time_of_this_very_process_is_found() -> None:
    before_s = read_cpu_s(os.getpid())
    began_s = time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    assert read_cpu_s(os.getpid()) - before_s == pytest.approx(0.2, abs=0.1)


@linux_only
def test_the_memory_of_this_very_process_is_found() -> None:
    before_mib = read_rss_mib(os.getpid())
    held = bytearray(os.urandom(1 << 20) * 64)
    assert read_rss_mib(os.getpid()) - before_mib == pytest.approx(len(held) >> 20, abs=16)


def test_rounds_are_taken_together_and_compared_with_no_proxy() -> None:
    runs = [
        Run(DIRECT, "many", Load(300_000, 5.0, 100.0, 300.0), 0.0),
        Run("nginx", "many", Load(300_000, 5.0, 400.0, 1000.0), 3.0),
        Run("slow", "many", Load(10_000, 5.0, 4000.0, 9000.0), 1.0),
        Run(DIRECT, "many", Load(300_000, 5.0, 200.0, 500.0), 0.0),
        Run("nginx", "many", Load(100_000, 5.0, 600.0, 3000.0), 1.0),
        Run("nginx", "one", Load(50_000, 5.0, 50.0, 90.0), 1.0),
    ]
    assert build_rows(runs) == [
        Row(DIRECT, "many", 60_000.0, 0.0, 0.0, 0.0),
        Row("nginx", "many", 40_000.0, 350.0, 1600.0, 10.0),
        Row("slow", "many", 2000.0, 3850.0, 8600.0, 100.0),
        Row("nginx", "one", 10_000.0, 0.0, 0.0, 20.0),
    ]


def test_a_round_in_which_the_machine_was_slow_does_not_decide_what_a_call_costs() -> None:
    load = Load(100_000, 1.0, 100.0, 300.0)
    (row,) = build_rows([Run("nginx", "many", load, cpu_s) for cpu_s in (1.0, 4.0, 1.2)])
    assert row.cpu_us == pytest.approx(12.0)


def test_memory_is_that_of_all_rounds() -> None:
    load = Load(1000, 1.0, 100.0, 300.0)
    runs = [Run("slow", "streams", load, 0.5, 10.0, 20.0), Run("slow", "streams", load, 0.5, 12.0, 40.0)]
    assert build_rows(runs) == [Row("slow", "streams", 1000.0, 0.0, 0.0, 500.0, 11.0, 30.0)]


def test_the_numbers_of_our_own_load_are_read() -> None:
    line = '{"calls":51,"seconds":2.005,"p50_us":38759.654,"p99_us":46668.409}\n'
    assert parse_load(line) == Load(51, 2.005, 38759.654, 46668.409)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cold: the answer is 401 Unauthorized\n", "^cold: the answer is 401 Unauthorized$"),
        ('{"calls": 1}\n', "calls"),
        ("", "ended without a word"),
    ],
)
def test_what_our_own_load_says_else_is_an_error(line: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        parse_load(line)


def outcome_of(*changed: Row, left_out: dict[tuple[str, str], str] | None = None) -> Outcome:
    """One where every proxy of interest has the same figures in all workloads, but for those `changed`."""
    names = [DIRECT, "nginx", LARGE_BUFFERS, "envoy", "go", "bearerd"]
    rows = {
        (workload.name, name): Row(name, workload.name, 1000.0, 100.0, 300.0, 100.0, 10.0, 20.0)
        for workload in WORKLOADS
        for name in names
    }
    rows |= {(row.workload, row.proxy): row for row in changed}
    return Outcome(tuple(rows.values()), left_out or {})


def test_calls_are_compared_by_what_is_added_and_used() -> None:
    rows = (
        Row(DIRECT, SMALL.name, 60_000.0, 0.0, 0.0, 0.0),
        Row("nginx", SMALL.name, 40_000.0, 500.0, 2000.0, 10.0),
        Row("slow", SMALL.name, 2000.0, 4000.0, 9000.0, 105.0),
    )
    assert (
        build_section(SMALL, Outcome(rows, {}))
        == """\
### Small GET, 32 connections

| proxy | calls/s | added p50 us | added p99 us | CPU us/call | CPU / nginx |
| ----- | ------: | -----------: | -----------: | ----------: | ----------: |
| nginx |   40000 |          500 |         2000 |        10.0 |        1.00 |
| slow  |    2000 |         4000 |         9000 |       105.0 |       10.50 |
"""
    )


def test_bodies_are_compared_by_their_rate_beside_what_is_possible() -> None:
    rows = (
        Row(DIRECT, DOWN.name, 40.0, 0.0, 0.0, 0.0),
        Row("nginx", DOWN.name, 20.0, 0.0, 0.0, 50_000.0),
        Row("slow", DOWN.name, 5.0, 0.0, 0.0, 200_000.0),
    )
    assert (
        build_section(DOWN, Outcome(rows, {(DOWN.name, "old"): "forgets the end", (UP.name, "odd"): "-"}))
        == """\
### Response of 100 MiB, 1 connection

| proxy    | MiB/s | % of nginx | CPU ms/100 MiB | CPU / nginx |
| -------- | ----: | ---------: | -------------: | ----------: |
| no proxy |  4000 |        200 |              - |           - |
| nginx    |  2000 |        100 |           50.0 |        1.00 |
| slow     |   500 |         25 |          200.0 |        4.00 |

Left out: old: forgets the end.
"""
    )


def test_streams_and_sockets_are_compared_by_memory() -> None:
    rows = (
        Row("slow", STREAMS.name, 900.0, 400.0, 900.0, 105.0, 31.25, 18.75),
        Row("slow", SOCKETS.name, 900.0, 0.0, 0.0, 0.0, 30.0, 14.5),
    )
    assert (
        build_tables(Outcome(rows, {}))
        == """\
### 1,000 streams of server-sent events

| proxy | idle MiB | KiB/stream | added p50 us | added p99 us |
| ----- | -------: | ---------: | -----------: | -----------: |
| slow  |     31.2 |       18.8 |          400 |          900 |

### 256 idle WebSockets

| proxy | idle MiB | KiB/socket |
| ----- | -------: | ---------: |
| slow  |     30.0 |       14.5 |
"""
    )


def test_a_table_can_be_made_without_the_reference() -> None:
    rows = (Row("slow", ONE_MIB.name, 1.0, 1.0, 1.0, 1.0), Row("slow", SMALL.name, 1.0, 1.0, 1.0, 1.0))
    assert build_tables(Outcome(rows, {})).count("|           - |") == 2


def verdicts(outcome: Outcome) -> dict[str, str]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in build_bar(outcome).splitlines()[2:]]
    return {line[0]: line[-1] for line in lines if line[-1]}


def test_what_is_as_good_as_the_others_meets_the_bar() -> None:
    assert len(verdicts(outcome_of())) == 9
    assert set(verdicts(outcome_of()).values()) == {"met"}


@pytest.mark.parametrize(
    ("row", "missed"),
    [
        (Row("bearerd", SMALL.name, 1000.0, 0.0, 0.0, 100.1), {"CPU us of a small GET"}),
        (
            Row("bearerd", ONE_MIB.name, 699.0, 0.0, 0.0, 100.0),
            {"Response of 1 MiB: % of nginx", "Response of 1 MiB: % of nginx, 64 KiB buffers"},
        ),
        (
            Row("nginx", DOWN.name, 1430.0, 0.0, 0.0, 100.0),
            {"Response of 100 MiB: % of nginx"},
        ),
        (
            Row(LARGE_BUFFERS, UP.name, 1430.0, 0.0, 0.0, 100.0),
            {"Request of 100 MiB: % of nginx, 64 KiB buffers"},
        ),
        (Row("bearerd", STREAMS.name, 1.0, 0.0, 0.0, 1.0, 0.0, 40.1), {"KiB of memory for a stream"}),
        (Row("bearerd", STREAMS.name, 1.0, 1000.1, 0.0, 1.0), {"ms added to an event, p50"}),
    ],
)
def test_a_figure_that_misses_the_bar_is_said_to(row: Row, missed: set[str]) -> None:
    found = verdicts(outcome_of(row))
    assert {figure for figure, verdict in found.items() if verdict == "**not met**"} == missed


def test_bars_are_to_scale() -> None:
    parsed = parse_svg(Chart("Title", "us", ("",), {"a": (10.0,), "b": (20.0,), "none": (0.0,)}, "b"))
    widths = [float(bar.get("width", "")) for bar in parsed.iterfind("{*}rect")]
    assert widths[1] == 2 * widths[0] > 0
    assert widths[2] == 0
    assert [bar.get("class") for bar in parsed.iterfind("{*}rect")] == ["bar0", "ours0", "bar0"]
    assert parsed.findall("{*}line") == []


def test_a_bar_that_would_dwarf_the_others_is_broken_off_and_keeps_its_number() -> None:
    parsed = parse_svg(Chart("Title", "us", ("",), {"a": (10.0,), "b": (20.0,), "c": (900.0,)}, "b"))
    widths = [float(bar.get("width", "")) for bar in parsed.iterfind("{*}rect")]
    assert widths[2] == widths[1]
    assert len(parsed.findall("{*}line")) == 1
    assert "900" in [text.text for text in parsed.iterfind("{*}text")]


def test_a_chart_of_several_series_has_a_legend_and_one_with_a_goal_a_line() -> None:
    parsed = parse_svg(Chart("A & B", "us", ("p50", "p99"), {"<a>": (10.0, 20.0)}, "a", goal=40.0))
    texts = [text.text for text in parsed.iterfind("{*}text")]
    assert {"A & B", "p50", "p99", "<a>"} <= set(texts)
    assert [line.get("class") for line in parsed.iterfind("{*}line")] == ["bar"]
    assert float(parsed.findall("{*}line")[0].get("x1", "")) < 760


def parse_svg(chart: Chart) -> Element:
    text = draw(chart)
    assert "prefers-color-scheme: dark" in text
    return fromstring(text)


def test_the_longest_bar_is_the_greatest_that_is_near_the_median() -> None:
    assert limit_of([10, 11, 12 * LONGEST]) == 11
    assert limit_of([10, 11, 11 * LONGEST]) == 11 * LONGEST
    assert limit_of([-5.0, -4.0, 3.0]) <= 0
    assert [format_number(value) for value in (99.94, 100.4, 0.05, -3.0)] == ["99.9", "100", "0.1", "-3.0"]


def test_functions_are_named_without_the_folders_they_are_in() -> None:
    cases = [
        (("/home/a/.venv/lib/python3.12/site-packages/aiohttp/web.py", "run"), "aiohttp.web: run"),
        (("/home/a/bearerd/proxy/bearerd/core/guard.py", "check"), "bearerd.core.guard: check"),
        (("/usr/lib/python3.11/asyncio/events.py", "_run"), "asyncio.events: _run"),
        (("/somewhere/else/tool.py", "<genexpr>"), "tool: genexpr"),
        (("~", "<method 'get' of 'dict' objects>"), "method 'get' of 'dict' objects"),
    ]
    assert [name_of(*case) for case, _ in cases] == [name for _, name in cases]


def test_costs_are_for_a_request_and_the_rest_is_what_no_function_has() -> None:
    stats: Stats = {
        ("/a/proxy/bearerd/gate.py", 1, "enter"): (100, 200, 0.5, 0.6, {}),
        ("/a/proxy/bearerd/gate.py", 9, "leave"): (100, 100, 0.25, 0.3, {}),
        ("/a/proxy/bearerd/gate.py", 20, "enter"): (100, 100, 0.25, 0.3, {}),
    }
    costs = build_costs(stats, 100, 2.0)
    assert costs == [
        Cost("bearerd.gate: enter", 3.0, 0.375),
        Cost("bearerd.gate: leave", 1.0, 0.125),
        Cost(OTHERS, 0.0, 0.0),
        Cost(REST, 0.0, 0.5),
    ]
    assert build_costs_table(costs).splitlines()[2].split() == [
        "|",
        "bearerd.gate:",
        "enter",
        "|",
        "3.00",
        "|",
        "37.5",
        "|",
    ]


def test_only_the_dearest_functions_are_told() -> None:
    stats: Stats = {("~", 0, f"f{place}"): (1, 1, float(place), 0.0, {}) for place in range(TOP + 9)}
    costs = build_costs(stats, 1, 1.0)
    assert len(costs) == TOP + 2
    assert costs[0].name == f"f{TOP + 8}"
    assert costs[-2] == Cost(OTHERS, 0.0, sum(range(9)))
    assert costs[-1] == Cost(REST, 0.0, 0.0)


def test_versions_and_processors_are_found_in_what_programs_say() -> None:
    assert find_version("nginx version: nginx/1.22.1\n") == "1.22.1"
    assert find_version("  version: 9e5580933739775e8bce/1.40.0/Clean/RELEASE\n") == "1.40.0"
    assert find_version("go version go1.19.8 linux/amd64") == "1.19.8"
    assert find_version("no idea") == "unknown"
    assert find_model("processor : 0\nmodel name\t: A Fast One\nmodel name\t: A Fast One\n") == "A Fast One"
    assert find_model("processor : 0\n") == platform.machine()


def report_of(outcome: Outcome) -> Report:
    return Report([("kernel", "Linux 6")], "make bench DURATION=4", outcome, [Cost(REST, 0.0, 1.0)])


def test_the_document_has_every_part_and_every_chart_it_shows(tmp_path: Path) -> None:
    write_report(tmp_path, report_of(outcome_of(left_out={(SOCKETS.name, "old"): "knows none"})))
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((benchmarks/.+?)\)", text)
    assert {tmp_path / name for name in shown} == set((tmp_path / "benchmarks").iterdir())
    assert len(shown) == 4
    assert "$" not in text
    assert text.endswith("|\n")
    for part in ("Linux 6", "make bench DURATION=4", " met |", REST, "Left out: old: knows none."):
        assert part in text


def test_no_document_is_written_of_half_a_run(tmp_path: Path) -> None:
    whole = outcome_of()
    half = Outcome(tuple(row for row in whole.rows if row.workload != STREAMS.name), {})
    with pytest.raises(KeyError):
        write_report(tmp_path, report_of(half))
    assert list(tmp_path.iterdir()) == []


def test_charts_leave_out_who_cannot_do_a_part() -> None:
    whole = outcome_of()
    rows = tuple(row for row in whole.rows if (row.workload, row.proxy) != (UP.name, "go"))
    charts = build_charts(Outcome(rows, {}))
    assert ">go<" in charts["cpu.svg"]
    assert ">go<" not in charts["throughput.svg"]
    assert ">no proxy<" not in charts["throughput.svg"]


def test_a_variant_is_measured_only_where_it_makes_a_difference() -> None:
    assert takes("nginx", SMALL)
    assert takes(LARGE_BUFFERS, DOWN)
    assert not takes(LARGE_BUFFERS, SMALL)
    assert takes(ACCESS_LOG, SMALL)
    assert not takes(ACCESS_LOG, STREAMS)
    assert VARIANTS.keys() <= CONTESTANTS.keys()


def fail(reason: str) -> None:
    raise BenchError(reason)


@linux_only
def test_a_peer_that_fails_is_left_out_with_its_reason_and_ours_is_not_excused(tmp_path: Path) -> None:
    loader = Loader("/no/such/program", tmp_path, tmp_path, {0})
    comparison = Comparison(["go", "bearerd"], tmp_path, 1, {0}, loader)
    comparison.runs.append(Run("go", UP.name, Load(1, 1.0, 1.0, 1.0), 0.1))
    with comparison.excused("go", UP):
        fail("3 bytes came of 4\nand more")
    assert comparison.left_out[UP.name, "go"] == "failed (3 bytes came of 4)"
    assert comparison.runs == []
    with (
        pytest.raises(BenchError, match=r"bearerd, Request of 100 MiB.*: no"),
        comparison.excused("bearerd", UP),
    ):
        raise BenchError("no")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(BenchError, match="no-such-program is not installed"):
        find_program("no-such-program")


@linux_only
def test_an_unknown_proxy_is_refused() -> None:
    assert choose(["bearerd"]) == ["nginx", "bearerd"]
    with pytest.raises(BenchError, match=r"unknown: squid; known: nginx, .*envoy, go, bearerd, "):
        choose(["squid"])


@linux_only
def test_a_server_is_there_inside_the_block_and_gone_after_it(tmp_path: Path) -> None:
    def prepare(folder: Path, port: int, _: int) -> list[str]:
        assert folder.is_dir()
        return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]

    with serve(prepare, tmp_path / "server", os.sched_getaffinity(0)) as server:
        assert answers(server.port)
        os.kill(server.pid, 0)
    assert not answers(server.port)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@linux_only
def test_what_is_started_on_cores_has_never_been_on_others() -> None:
    before = os.sched_getaffinity(0)
    cores = {max(before)}
    count = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with pinned(cores):
        seen = subprocess.run(count, capture_output=True, text=True, check=True).stdout
    assert set(map(int, seen.split())) == cores
    assert os.sched_getaffinity(0) == before


@linux_only
def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    def prepare(*_: object) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such luck')"]

    with (
        pytest.raises(BenchError, match="did not start:\nno such luck"),
        serve(prepare, tmp_path / "server", os.sched_getaffinity(0)),
    ):
        pass


def test_the_configuration_of_bearerd_is_private_and_names_both_ports(tmp_path: Path) -> None:
    *_, file = prepare_bearerd(tmp_path, 1111, 2222)
    assert Path(file).stat().st_mode & 0o777 == 0o600
    parsed = tomllib.loads(Path(file).read_text())
    assert parsed["listen"]["port"] == 1111
    assert parsed["routes"]["/"]["upstream"] == "http://127.0.0.1:2222"
