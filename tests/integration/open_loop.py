"""Load on the query port from a process of its own, with each answer as it came and when."""

import gc
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from random import Random
from typing import NamedTuple

import uvloop

from benchmarks.load import LoadClient
from clipper.http1 import Answer
from clipper.load.arrivals import due_times_s
from clipper.load.inputs import Ring
from clipper.load.sender import Sender, Target

# Above the load times the SLO, by far. Over it a request waits for a connection.
MAX_CONNECTIONS = 2000
# Far longer than any SLO here.
ANSWER_WITHIN_S = 10.0


class Exchange(NamedTuple):
    """A request's number, and its answer; times are of Linux's monotonic clock, which all processes share."""

    number: int
    sent_s: float
    answered_s: float
    status: int
    answer: bytes


def saturation_per_s(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    """How many requests are answered per second if each connection sends its next one with its last one's answer."""
    numbered = cycle(enumerate(requests))

    async def run() -> float:
        client = LoadClient("127.0.0.1", port, connections, lambda: next(numbered), lambda answer: None)
        await client.run_for(seconds)
        return client.answered / seconds

    return uvloop.run(run())


def send(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> list[Exchange]:
    """Send requests, over and over, evenly spread over the time, whether or not earlier ones were answered.

    Raises:
        ConnectionError: some were not answered.
    """
    log = _Exchanges()
    due_s = due_times_s("constant", per_s, seconds, Random())

    async def run() -> None:
        sender = Sender(
            Target("127.0.0.1", port), Ring(requests, ""), due_s, log,
            max_connections=MAX_CONNECTIONS, answer_within_s=ANSWER_WITHIN_S,
        )  # fmt: skip
        await sender.connect()
        await sender.run(time.monotonic())

    # A pause of the collector's, over so many exchanges, would look like late answers.
    gc.disable()
    uvloop.run(run())
    if log.lost:
        raise ConnectionError(f"besides {len(log.exchanges)} answers: {dict(log.lost)}")
    return log.exchanges


class _Exchanges:
    """The log of a sender."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.lost: Counter[str] = Counter()

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        pass

    def waited(self, number: int, due_s: float, sent_s: float) -> None:
        pass

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        self.exchanges.append(Exchange(number, sent_s, answered_s, answer.status, answer.body))

    def failed(self, number: int, due_s: float, why: str) -> None:
        self.lost[why] += 1

    def not_sent(self, number: int, due_s: float) -> None:
        self.lost["not sent"] += 1
