"""Rows on model selection: what choosing among five models costs, and how fast feedback is learned durably."""

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.harness import wrk
from benchmarks.harness.load import Answer, LoadClient, post
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, ROUND_S, SLO_MS, WARM_UP_S, Workbench, median_ratio
from benchmarks.rows.languages import cpu_s

MODELS = 5
CONNECTIONS = 32

# Feedback is on these inputs over and over: after a first round, every model's output is in the cache.
INPUTS = 1_000
BATCH = 100
# So many connections of wrk, each pausing between its queries for far longer than an answer takes: the rate is kept.
PREDICTING = 256
# Bodies of queries that all differ.
FEATURES = 8
PLAIN = b'{"input":[NUMBER.25,2.0,3.0,4.0]}'
WITH_FEATURES = b'{"input":[NUMBER.25,2.0,3.0,4.0],"features":[1,0.5,0.25,2,3,0,-1,0.125]}'


def over_single(policy: str, floor: float) -> Row:
    def measure(bench: Workbench) -> Outcome:
        single, several = bench.sums("single", 1), bench.sums(policy, MODELS)
        for application in (single, several):
            bench.serve(application, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S)
        ours, theirs = bench.compare(
            lambda: bench.serve(several, FOUR, connections=CONNECTIONS).outputs_per_s,
            lambda: bench.serve(single, FOUR, connections=CONNECTIONS).outputs_per_s,
        )
        ratio = median_ratio(ours, theirs)
        numbers = {f"{policy}_per_s": ours, "single_per_s": theirs, "ratio": ratio}
        return Outcome(f"{ratio:.2f} ×", ratio >= floor, numbers)

    return Row(f"{policy}_over_single", f"{policy} over 5 sums, over one sum alone", f"≥ {floor} ×", measure)


@dataclass(frozen=True, slots=True)
class Feedback:
    """How feedback is sent: ``size`` observations a request, so many requests at a time."""

    name: str
    what: str
    size: int
    connections: int
    floor_per_s: int


ONE_BY_ONE = Feedback("observe_single", "single observations, 32 connections", 1, 32, 3_000)
IN_BATCHES = Feedback("observe_batch", "observations in batches of 100, one connection", BATCH, 1, 10_000)


def observe(feedback: Feedback) -> Row:
    """Feedback for exp4, which learns on every model's output, while predictions go on at half of what they can."""

    def measure(bench: Workbench) -> Outcome:
        application = bench.sums("exp4", MODELS)
        full = bench.serve(application, FOUR, connections=CONNECTIONS, seconds=WARM_UP_S).outputs_per_s
        script = throttled(FOUR, bench.folder / "half.lua", full / 2)
        uvloop.run(_observe(bench, application, feedback, WARM_UP_S))
        with ThreadPoolExecutor(1) as pool:
            url = bench.server.url(application)
            predicting = pool.submit(wrk.run, url, script, connections=PREDICTING, seconds=ROUND_S)
            per_s = uvloop.run(_observe(bench, application, feedback, ROUND_S))
            load = predicting.result()
        numbers = {
            "observations_per_s": per_s,
            "predictions_full_per_s": full,
            "predictions_per_s": load.requests_per_s,
            "p50_ms": load.p50_ms,
            "p99_ms": load.p99_ms,
        }
        passed = per_s >= feedback.floor_per_s and load.p99_ms <= SLO_MS
        return Outcome(f"{per_s:,.0f}/s, p99 {load.p99_ms:.1f} ms", passed, numbers)

    floor = f"≥ {feedback.floor_per_s:,}/s, ≤ {SLO_MS} ms"
    return Row(feedback.name, f"durable {feedback.what}; p99 of predictions at half load", floor, measure)


def throttled(script: Path, path: Path, per_s: float) -> Path:
    """Write ``script`` with a pause before each request, so that ``PREDICTING`` connections send at most ``per_s``."""
    # wrk pauses for whole milliseconds.
    pause_ms = max(1, ceil(PREDICTING / per_s * 1000))
    path.write_text(f"{script.read_text()}\nfunction delay() return {pause_ms} end\n")
    return path


async def _observe(bench: Workbench, application: str, feedback: Feedback, seconds: float) -> float:
    """Return observations/s that were acknowledged."""
    requests = observations(application, feedback.size)
    refused: list[Answer[None]] = []

    def on_answer(answer: Answer[None]) -> None:
        if answer.status != 200:
            refused.append(answer)

    host, port = bench.server.query_address()
    client = LoadClient[None](host, port, feedback.connections, lambda: (None, next(requests)), on_answer)
    began_s = asyncio.get_running_loop().time()
    await client.run_for(seconds)
    taken_s = asyncio.get_running_loop().time() - began_s
    return (client.answered - len(refused)) * feedback.size / taken_s


def observations(application: str, size: int) -> Iterator[bytes]:
    """Requests with feedback on ``INPUTS`` inputs, in turn, without end."""
    each = [b'{"input":[%d.25,2.0,3.0,4.0],"label":%d}' % (number, number % 2) for number in range(INPUTS)]
    if size == 1:
        bodies = each
    else:
        starts = range(0, INPUTS, size)
        bodies = [b'{"observations":[%b]}' % b",".join(each[start : start + size]) for start in starts]
    return itertools.cycle([post(f"/{application}/observe", body) for body in bodies])


def cascade(bench: Workbench) -> Outcome:
    """CPU of the worker for a query and the feedback on it: of one model, and of a cascade that stops or goes on.

    A sum says nothing of how sure it is, which is a confidence of 0: so all stop, or all go on.
    """
    single, stops, goes_on = _cpu_us(
        bench,
        {
            bench.sums("single", 1): PLAIN,
            bench.sums("cascade", 2, parameter="threshold=0"): PLAIN,
            bench.sums("cascade", 2, parameter="threshold=0.5"): PLAIN,
        },
    )
    added, again = median_ratio(stops, single) - 1, median_ratio(goes_on, single) - 1
    numbers = {
        "single_cpu_us": single,
        "stops_cpu_us": stops,
        "goes_on_cpu_us": goes_on,
        "added_by_stops": added,
        "added_by_goes_on": again,
    }
    return Outcome(f"{added:+.0%}, {again:+.0%}; {median(single):.0f} us", added <= 0.25, numbers)


def features(bench: Workbench) -> Outcome:
    """The same of one model, of five by a policy that goes by no features, and of five by eight features."""
    single, plain, by_features = _cpu_us(
        bench,
        {
            bench.sums("single", 1): PLAIN,
            bench.sums("thompson", MODELS): PLAIN,
            bench.sums("linucb", MODELS, features=FEATURES): WITH_FEATURES,
        },
    )
    plain_added, added = median_ratio(plain, single) - 1, median_ratio(by_features, single) - 1
    numbers = {
        "single_cpu_us": single,
        "thompson_cpu_us": plain,
        "linucb_cpu_us": by_features,
        "added_by_thompson": plain_added,
        "added_by_linucb": added,
    }
    return Outcome(f"{added:+.0%}, {plain_added:+.0%} without; {median(single):.0f} us", added <= 1.5, numbers)


def _cpu_us(bench: Workbench, applications: Mapping[str, bytes]) -> list[list[float]]:
    """CPU of the worker for a query and the feedback on it, of each application and the bodies for it, in turns."""
    (worker,) = bench.server.run("status")["workers"]

    def cpu_us(application: str, seconds: float) -> float:
        before_s = cpu_s(worker["pid"])
        pairs = uvloop.run(_ask_and_observe(bench, application, applications[application], seconds))
        return (cpu_s(worker["pid"]) - before_s) / pairs * 1e6

    for application in applications:
        cpu_us(application, WARM_UP_S)
    return bench.compare(*(lambda name=name: cpu_us(name, ROUND_S) for name in applications))


async def _ask_and_observe(bench: Workbench, application: str, body: bytes, seconds: float) -> int:
    """Ask, and send feedback on each query once it is answered; return how many had both."""
    asked: deque[int] = deque()
    numbers = itertools.count()
    counts = Counter[bool]()

    def next_request() -> tuple[bool, bytes]:
        if asked:
            return True, post(f"/{application}/observe", b'{"query_id":%d,"label":1}' % asked.popleft())
        return False, post(f"/{application}/predict", body.replace(b"NUMBER", b"%d" % next(numbers)))

    def on_answer(answer: Answer[bool]) -> None:
        counts[answer.tag] += answer.status == 200
        if not answer.tag:
            asked.append(json.loads(answer.body)["query_id"])

    host, port = bench.server.query_address()
    client = LoadClient[bool](host, port, CONNECTIONS, next_request, on_answer)
    await client.run_for(seconds)
    return counts[True]


ROWS = [
    over_single("exp3", 0.7),
    over_single("ensemble", 0.25),
    observe(IN_BATCHES),
    observe(ONE_BY_ONE),
    Row(
        "cascade_over_single",
        "CPU of a query and its feedback, of a cascade that stops and one that goes on, over one model",
        "≤ +25 % where it stops",
        cascade,
    ),
    Row(
        "features_over_single",
        "CPU of a query and its feedback: linucb by eight features, and thompson, among five models, over one alone",
        "≤ +150 %",
        features,
    ),
]
