"""Load on the query port that does not wait for answers, with each answer as it came and when."""

import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from random import Random
from typing import NamedTuple
from unittest.mock import patch

import uvloop

from clipper.base.http1 import Answer
from clipper.cli.load import sender as senders
from clipper.cli.load.arrivals import due_times_s
from clipper.cli.load.inputs import Ring
from clipper.cli.load.sender import MAX_WAITING, Sender, Target

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
    log = _Exchanges()
    began_s = time.monotonic()
    uvloop.run(_run(port, requests, repeat(0.0, MAX_WAITING), log, connections, seconds))
    return len(log.exchanges) / (max(each.answered_s for each in log.exchanges) - began_s)


def send_evenly(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> list[Exchange]:
    """``send``, with the requests spread evenly over the time."""
    return send(port, requests, due_times_s("constant", per_s, seconds, Random()))


def send(port: int, requests: Sequence[bytes], due_s: Iterator[float]) -> list[Exchange]:
    """Send requests, over and over, when they are due, whether or not earlier ones were answered.

    Raises:
        ConnectionError: some were not answered.
    """
    log = _Exchanges()
    # A pause of the collector's, over so many exchanges, would look like late answers.
    gc.disable()
    try:
        uvloop.run(_run(port, requests, due_s, log, MAX_CONNECTIONS, ANSWER_WITHIN_S))
    finally:
        gc.enable()
    if log.lost:
        raise ConnectionError(f"besides {len(log.exchanges)} answers: {dict(log.lost)}")
    return log.exchanges


async def _run(
    port: int, requests: Sequence[bytes], due_s: Iterator[float], log: "_Exchanges", connections: int, within_s: float
) -> None:
    target = Target("127.0.0.1", port)
    sender = Sender(target, Ring(requests, ""), due_s, log, max_connections=connections, answer_within_s=within_s)
    # A busy machine may not run it for longer than a query may be behind.
    with patch.object(senders, "MAX_BEHIND_S", within_s):
        await sender.connect()
        await sender.run(time.monotonic())


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
