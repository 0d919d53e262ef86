"""Digits as queries, and a tally of their answers."""

import random
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.load import Answer, post

# Each image is queried many times; a first pixel that no model looks at makes most queries new ones, as they would
# be in earnest. The rest repeats an image as it is, so that the cache has something to do.
REPEATED_SHARE = 0.2
# The screen calls this "now".
RECENT_S = 2.0


class Reply(msgspec.Struct):
    """What the demo reads of an answer."""

    output: object
    default: bool


class Digits:
    """Requests for the images in turn, in an order of their own.

    Args:
        images: float64 (n, 784), in 0 to 1.
        labels: int64 (n,).
    """

    def __init__(self, application: str, images: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        self._path = f"/{application}/predict"
        self._tails = [b"," + b",".join(b"%.4g" % pixel for pixel in image[1:]) + b"]}" for image in images]
        self._labels = labels.tolist()
        self._random = random.Random(0)
        self._sent = 0

    def next_request(self) -> tuple[int, bytes]:
        """Return a digit's label and the request that asks for it."""
        self._sent += 1
        index = self._random.randrange(len(self._labels))
        first = b"0" if self._random.random() < REPEATED_SHARE else b"%de-12" % self._sent
        return self._labels[index], post(self._path, b'{"input":[' + first + self._tails[index])


@dataclass(slots=True)
class Tally:
    """Counts of answers. ``refused`` are those that are not 200; latencies are in seconds."""

    answered: int = 0
    correct: int = 0
    defaults: int = 0
    refused: int = 0
    latencies_s: list[float] = field(default_factory=list)

    def add(self, latency_s: float, *, correct: bool, default: bool, refused: bool) -> None:
        self.answered += 1
        self.correct += correct
        self.defaults += default
        self.refused += refused
        self.latencies_s.append(latency_s)

    @property
    def accuracy(self) -> float:
        """Of the answers that carry a model's output."""
        return self.correct / max(1, self.answered - self.defaults - self.refused)

    def percentile_ms(self, percent: float) -> float:
        return percentile_ms(self.latencies_s, percent)


class Traffic:
    """The tally of the whole run, of each stretch of it, and of the last seconds."""

    def __init__(self) -> None:
        self.whole = Tally()
        self.stretches: dict[str, Tally] = {}
        self._stretch = Tally()
        self._recent: deque[tuple[float, float, bool | None]] = deque()  # answered at, latency, correct if predicted

    def begin(self, stretch: str) -> None:
        """From here on answers count for that stretch."""
        self._stretch = self.stretches.setdefault(stretch, Tally())

    def add(self, answer: Answer[int]) -> None:
        refused = answer.status != 200
        reply = Reply(None, False) if refused else msgspec.json.decode(answer.body, type=Reply)
        predicted = not refused and not reply.default
        correct = predicted and reply.output == answer.tag
        for tally in (self.whole, self._stretch):
            tally.add(answer.latency_s, correct=correct, default=reply.default, refused=refused)
        self._recent.append((answer.answered_s, answer.latency_s, correct if predicted else None))

    def recent(self) -> "Recent":
        """What the last ``RECENT_S`` seconds looked like."""
        now_s = time.perf_counter()
        while self._recent and self._recent[0][0] < now_s - RECENT_S:
            self._recent.popleft()
        latencies_s = [latency_s for _, latency_s, _ in self._recent]
        outcomes = [correct for _, _, correct in self._recent if correct is not None]
        return Recent(
            queries_per_s=len(self._recent) / RECENT_S,
            accuracy=sum(outcomes) / max(1, len(outcomes)),
            p50_ms=percentile_ms(latencies_s, 50),
            p99_ms=percentile_ms(latencies_s, 99),
        )


@dataclass(frozen=True, slots=True)
class Recent:
    queries_per_s: float
    accuracy: float
    p50_ms: float
    p99_ms: float


def percentile_ms(latencies_s: list[float], percent: float) -> float:
    return float(np.percentile(latencies_s, percent)) * 1e3 if latencies_s else 0.0
