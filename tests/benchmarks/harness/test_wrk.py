import pytest

from benchmarks.harness.wrk import WrkFailed, parse

REPORT = """Running 4s test @ http://127.0.0.1:8004/any
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   540.17us  201.11us   5.01ms   85.05%
    Req/Sec    60.12k     2.11k   62.80k    70.00%
  Latency Distribution
     50%  483.00us
     75%    0.61ms
     90%    0.75ms
     99%    1.20ms
  240448 requests in 4.00s, 30.12MB read
Requests/sec:  60111.48
Transfer/sec:      7.53MB
"""


def test_report() -> None:
    load = parse(REPORT)
    assert (load.requests, load.requests_per_s, load.failed, load.broken) == (240448, 60111.48, 0, 0)
    assert load.p50_ms == pytest.approx(0.483)
    assert load.p99_ms == pytest.approx(1.2)


def test_report_of_failures() -> None:
    text = REPORT.replace("Requests/sec", "  Non-2xx or 3xx responses: 17\nRequests/sec")
    text = text.replace("  Non-2xx", "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx")
    load = parse(text)
    assert (load.failed, load.broken) == (17, 10)


def test_report_of_defaults() -> None:
    assert parse(REPORT).defaults == 0
    assert parse(REPORT + "Defaults: 12\n").defaults == 12


def test_seconds() -> None:
    assert parse(REPORT.replace("1.20ms", "1.52s ")).p99_ms == 1520


@pytest.mark.parametrize(
    "text", ["", "unable to connect", REPORT.replace("240448 requests", "0 requests"), REPORT.replace("99%", "98%")]
)
def test_no_report(text: str) -> None:
    with pytest.raises(WrkFailed):
        parse(text)
