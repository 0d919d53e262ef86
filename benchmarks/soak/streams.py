"""What is asked during a soak: streams of queries and feedback, each at a rate of its own, and what became of them."""

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.harness.load import post
from benchmarks.soak.facts import Asked
from clipper.base.http1 import Answer
from clipper.cli.load.arrivals import due_times_s
from clipper.cli.load.histogram import Histogram
from clipper.cli.load.inputs import Head, Requests, Sample
from clipper.cli.load.records import BY_MODEL, outcome_of
from clipper.cli.load.runner import PATIENCE_S
from clipper.cli.load.sender import Sender, Target
from clipper.values.types import InputType

SLO_MS = 250.0
CONNECTIONS = 32
# Equal inputs, all of which stay in the cache.
POOL = 200
# Numbers of an input: as many as a picture's, so that the cache fills in the first minutes; and of a large one.
WIDTH, LARGE_WIDTH = 784, 30_000
# Contexts at a time. Every fourth query one goes for good and another comes.
CONTEXTS_AT_A_TIME, QUERIES_PER_CONTEXT = 300, 4
# So many queries on one connection: then the next may be to another worker. Else a worker that was killed would get its
# part of a stream back only as connections break, and what it keeps of each stream would grow for hours.
QUERIES_A_CONNECTION = 50
# Answers of which feedback may come; more would be answered too late.
_MAX_ANSWERED = 1_000
_HIGHEST_US = 60_000_000
# Failures that are kept with their time; a run with more has failed whatever they are.
_MAX_FAILURES = 1_000
# Before a worker that was killed has a successor, and before that is seen.
_BROKEN_WITHIN_S = 3.0


@dataclass(slots=True)
class Tally:
    """A stream's log: what became of its queries. Times are of ``time.monotonic``.

    Attributes:
        failures: queries without an answer, or with one of 5xx: when they were due, and why.
    """

    on_answer: Callable[[bytes], None] | None = None
    offered: int = 0
    late: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[float, str]] = field(default_factory=list)
    latencies: Histogram = field(default_factory=lambda: Histogram(_HIGHEST_US))

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        self.offered += 1

    def waited(self, number: int, due_s: float, sent_s: float) -> None:
        return

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        self._took(answered_s - due_s)
        outcome = outcome_of(answer.status, answer.body)
        if outcome is BY_MODEL:
            self.ends["answered"] += 1
            if self.on_answer is not None:
                self.on_answer(answer.body)
        elif outcome.error.startswith("5"):
            self.failed(number, due_s, outcome.error)
        else:
            self.ends[outcome.error or f"default: {outcome.default}"] += 1

    def ended(self, how: str, latency_s: float) -> None:
        """A query that was not asked by HTTP has its answer."""
        self._took(latency_s)
        self.ends[how] += 1

    def _took(self, latency_s: float) -> None:
        self.late += latency_s > SLO_MS / 1e3
        self.latencies.record(latency_s)

    def failed(self, number: int, due_s: float, why: str) -> None:
        self.ends[why] += 1
        if len(self.failures) < _MAX_FAILURES:
            self.failures.append((due_s, why))

    def not_sent(self, number: int, due_s: float) -> None:
        self.failed(number, due_s, "not sent")

    def facts(self, name: str, kills_s: Sequence[float]) -> Asked:
        p50_ms, p99_ms = (self.latencies.percentile_ms(percent) for percent in (50, 99))
        ends = dict(self.ends.most_common())
        return Asked(name, self.offered, ends, lost(self.failures, kills_s), self.late, p50_ms, p99_ms)


def lost(failures: Sequence[tuple[float, str]], kills_s: Sequence[float]) -> int:
    """Queries that failed, but for those that did as a worker was killed.

    Their connections break. Feedback on what it had answered is refused until it has a successor.

    Args:
        failures: when queries were due, and why they failed.
        kills_s: when workers were killed, by the same clock.
    """
    within_s = SLO_MS / 1e3 + PATIENCE_S

    def is_of_kill(due_s: float, why: str) -> bool:
        is_broken = why in ("connection lost", "503 unavailable") or why.startswith("cannot connect")
        return is_broken and any(-within_s <= due_s - kill_s <= _BROKEN_WITHIN_S for kill_s in kills_s)

    return sum(not is_of_kill(*failure) for failure in failures)


@dataclass(frozen=True, slots=True)
class Stream:
    """``share`` of all queries."""

    name: str
    share: float
    requests: Requests
    tally: Tally

    def sender(self, target: Target, rate_per_s: float, duration_s: float) -> Sender:
        return Sender(
            target,
            Leaving(self.requests),
            due_times_s("poisson", rate_per_s * self.share, duration_s, random.Random()),
            self.tally,
            max_connections=CONNECTIONS,
            answer_within_s=SLO_MS / 1e3 + PATIENCE_S,
        )


class _Made:
    """Requests that are made when they are due."""

    def __init__(self, path: str, make: Callable[[int], bytes], what: str) -> None:
        self._path, self._make, self.what = path, make, what

    def of(self, number: int) -> bytes:
        return post(self._path, self._make(number))


class Leaving:
    """Requests of a client that leaves after some of them."""

    def __init__(self, requests: Requests) -> None:
        self._requests, self.what = requests, requests.what

    def of(self, number: int) -> bytes:
        request = self._requests.of(number)
        if number % QUERIES_A_CONNECTION == QUERIES_A_CONNECTION - 1:
            return request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        return request


class Inputs:
    """Inputs and contexts, and the latest queries of which feedback has not come."""

    def __init__(self) -> None:
        self._random = random.Random()
        self._pool = [json.dumps(self._input(WIDTH)) for _ in range(POOL)]
        self._answered: deque[int] = deque(maxlen=_MAX_ANSWERED)

    def _input(self, width: int) -> list[float]:
        return [round(self._random.random(), 4) for _ in range(width)]

    def keep(self, body: bytes) -> None:
        self._answered.append(json.loads(body)["query_id"])

    def equal(self, number: int) -> bytes:
        """One of the inputs that come again and again."""
        return f'{{"input":{self._pool[number % POOL]}}}'.encode()

    def in_context(self, number: int) -> bytes:
        return f'{{"input":{self._pool[number % POOL]},"context":"{self._context(number)}"}}'.encode()

    def feedback(self, number: int) -> bytes:
        """By query while there are any, and every third by its input."""
        label = self._random.randrange(2)
        if number % 3 and self._answered:
            return f'{{"query_id":{self._answered.pop()},"label":{label}}}'.encode()
        # A third of the queries has feedback: contexts of both come and go at the same pace.
        context = self._context(number * 3)
        return f'{{"input":{self._pool[number % POOL]},"label":{label},"context":"{context}"}}'.encode()

    def _context(self, number: int) -> str:
        return f"user-{number // QUERIES_PER_CONTEXT + self._random.randrange(CONTEXTS_AT_A_TIME)}"


def streams(host: str) -> list[Stream]:
    """All but what is asked by gRPC."""
    asked = Inputs()
    doubles = InputType.parse("float64[*]")

    def sample(application: str, width: int) -> Sample:
        return Sample(Head(host, f"/{application}/predict"), doubles, width, random.Random())

    return [
        Stream("new inputs", 0.22, sample("steady", WIDTH), Tally()),
        Stream("equal inputs", 0.20, _Made("/steady/predict", asked.equal, "equal inputs"), Tally()),
        Stream("exp3", 0.18, _Made("/chosen/predict", asked.in_context, "contexts"), Tally(asked.keep)),
        Stream("ensemble", 0.15, sample("voted", WIDTH), Tally()),
        Stream("changing model", 0.10, sample("changing", 4), Tally()),
        Stream("large inputs", 0.005, sample("large", LARGE_WIDTH), Tally()),
        Stream("feedback", 0.065, _Made("/chosen/observe", asked.feedback, "feedback"), Tally()),
    ]
