import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from bench.__main__ import choose
from bench.contestants import prepare_bearerd
from bench.figures import (
    DIRECT,
    BenchError,
    Load,
    Row,
    Run,
    Stat,
    build_rows,
    build_tables,
    family_of,
    parse_stat,
    parse_wrk,
)
from bench.servers import answers, find_program, pinned, read_cpu_s, read_rss_mib, serve

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
        Row("nginx", "many", 40_000.0, 350.0, 1600.0, 10.0),
        Row("slow", "many", 2000.0, 3850.0, 8600.0, 100.0),
        Row("nginx", "one", 10_000.0, 0.0, 0.0, 20.0),
    ]


def test_each_workload_has_a_table_that_compares_like_with_like() -> None:
    rows = [
        Row("nginx", "many", 40_000.0, 500.0, 2000.0, 10.0),
        Row("slow", "many", 2000.0, 4000.0, 9000.0, 105.0),
        Row("slow", "one", 900.0, 400.0, 900.0, 105.0),
    ]
    assert (
        build_tables(rows, {"nginx": 7.2, "slow": 99.6})
        == """\
### many

| proxy | calls/s | added p50 us | added p99 us | CPU us/call | CPU / nginx | idle MiB |
| ----- | ------: | -----------: | -----------: | ----------: | ----------: | -------: |
| nginx |   40000 |          500 |         2000 |        10.0 |        1.00 |        7 |
| slow  |    2000 |         4000 |         9000 |       105.0 |       10.50 |      100 |

### one

| proxy | calls/s | added p50 us | added p99 us | CPU us/call | CPU / nginx | idle MiB |
| ----- | ------: | -----------: | -----------: | ----------: | ----------: | -------: |
| slow  |     900 |          400 |          900 |       105.0 |           - |      100 |
"""
    )


def test_a_missing_program_is_named() -> None:
    with pytest.raises(BenchError, match="no-such-program is not installed"):
        find_program("no-such-program")


@linux_only
def test_an_unknown_proxy_is_refused() -> None:
    assert choose(["bearerd"]) == ["nginx", "bearerd"]
    with pytest.raises(BenchError, match="unknown: squid; known: nginx, envoy, go, bearerd, "):
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
