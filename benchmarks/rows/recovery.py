"""The row on a model that becomes ten times slower while it serves, and fast again."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.harness.load import Answer, LoadClient, post
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.series import steady_after_s, windows
from benchmarks.harness.workbench import SLO_MS, Workbench

CONNECTIONS = 32
FAST_S, SLOW_S, AGAIN_S = 5, 5, 8

BACK_UNDER_SLO_WITHIN_S = 2.0
BACK_TO_SPEED_WITHIN_S = 5.0


def slowdown(bench: Workbench) -> Outcome:
    switch = bench.folder / "slow"
    application = _deploy(bench, switch)
    answers, slow_s, again_s = uvloop.run(_run(bench, application, switch))
    before = windows(answers, slow_s - 2, slow_s)
    during = windows(answers, slow_s, slow_s + SLOW_S)
    after = windows(answers, again_s, again_s + AGAIN_S)
    usual_per_s = median(window.per_s for window in before)
    under_slo_s = steady_after_s([window.meets(SLO_MS) for window in during])
    at_speed_s = steady_after_s([window.per_s >= 0.9 * usual_per_s for window in after])
    numbers = {
        "usual_per_s": usual_per_s,
        "slow_per_s": during[-1].per_s,
        "under_slo_after_s": under_slo_s,
        "at_90_percent_after_s": at_speed_s,
        "series": [
            [window.end_s - 2, window.per_s, round(window.p99_ms, 2), round(window.default_share, 4)]
            for window in windows(answers, slow_s - 2, again_s + AGAIN_S)
        ],
    }
    return Outcome(
        f"{_seconds(under_slo_s)}, {_seconds(at_speed_s)}",
        _within(under_slo_s, BACK_UNDER_SLO_WITHIN_S) and _within(at_speed_s, BACK_TO_SPEED_WITHIN_S),
        numbers,
    )


def _deploy(bench: Workbench, switch: Path) -> str:
    data = bench.folder / "switch.txt"
    data.write_text(str(switch))
    options = ("--data", str(data), "--input-type", "doubles")
    bench.server.deploy("switched", "switched:Switched", *options, slo_ms=SLO_MS)
    return "switched"


async def _run(bench: Workbench, application: str, switch: Path) -> tuple[list[Answer[None]], float, float]:
    """Return the answers and when the model became slow, and fast again."""
    host, port = bench.server.query_address()
    answers: list[Answer[None]] = []
    requests = _requests(application)
    client = LoadClient[None](host, port, CONNECTIONS, lambda: (None, next(requests)), answers.append)
    running = asyncio.ensure_future(client.run_for(FAST_S + SLOW_S + AGAIN_S + 1))
    await asyncio.sleep(FAST_S)
    switch.touch()
    slow_s = time.perf_counter()
    await asyncio.sleep(SLOW_S)
    switch.unlink()
    again_s = time.perf_counter()
    await running
    return answers, slow_s, again_s


def _requests(application: str) -> Iterator[bytes]:
    """Requests that all differ, so that no cache answers them."""
    for number in itertools.count():
        yield post(f"/{application}/predict", b'{"input":[%d.5,2.0,3.0,4.0]}' % number)


def _within(seconds: float | None, bound_s: float) -> bool:
    return seconds is not None and seconds <= bound_s


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"


ROWS = [
    Row(
        "slowdown",
        "a model ten times slower mid-run: under the SLO again, at 90 % of its speed again",
        f"≤ {BACK_UNDER_SLO_WITHIN_S:.0f} s, ≤ {BACK_TO_SPEED_WITHIN_S:.0f} s",
        slowdown,
    )
]
