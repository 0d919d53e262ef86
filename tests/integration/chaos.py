"""Faults of replicas and their times: drawn from a seed, then carried out on real processes."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from tests.supervisor.live_server import Server

T = TypeVar("T")

Kind = Literal["kill", "hang", "starve"]
KINDS: tuple[Kind, ...] = ("kill", "hang", "starve")

# One act in so many seconds, at any time within them: each of six replicas is hurt five times in 45 s.
EVERY_S = 1.5
# A starved replica runs for a fifth of the time, for a second: too little to keep its pace, too much to be replaced.
STARVED_ROUNDS = 20
STOPPED_S, RUNNING_S = 0.04, 0.01


@dataclass(frozen=True, slots=True)
class Act:
    """``at_s`` counts from the beginning; ``index`` is the replica's, from 1."""

    at_s: float
    kind: Kind
    model: str
    index: int


def draw(seed: int, models: Sequence[str], replicas: int, seconds: float) -> list[Act]:
    """As many acts of each kind, and upon each replica, as the others get."""
    rng = random.Random(seed)
    count = int(seconds / EVERY_S)
    slots = [(model, index) for model in models for index in range(1, replicas + 1)]
    kinds = _shuffled(KINDS, count, rng)
    targets = _shuffled(slots, count, rng)
    times_s = [EVERY_S * (number + rng.random()) for number in range(count)]
    return [Act(at_s, kind, *target) for at_s, kind, target in zip(times_s, kinds, targets)]


def _shuffled(values: Sequence[T], count: int, rng: random.Random) -> list[T]:
    repeated = [values[number % len(values)] for number in range(count)]
    rng.shuffle(repeated)
    return repeated


def carry_out(server: Server, acts: Sequence[Act]) -> Counter[Kind]:
    """Do all of it, in as much time as it takes; how often each kind found its replica alive."""
    done: Counter[Kind] = Counter()
    began_s = time.monotonic()
    for act in acts:
        time.sleep(max(0.0, began_s + act.at_s - time.monotonic()))
        pid = _pid(server, act)
        if pid is not None:
            done[act.kind] += 1
            _do(act.kind, pid)
    return done


def _pid(server: Server, act: Act) -> int | None:
    for replica in server.call("GET", "/replicas"):
        if replica["id"].startswith(f"{act.model}:1#{act.index}") and replica["state"] == "ready":
            return int(replica["pid"])
    return None


def _do(kind: Kind, pid: int) -> None:
    # The descriptor is of this process, never of a later one with its number.
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if kind == "starve":
                _starve(process)
            else:
                signal.pidfd_send_signal(process, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        finally:
            os.close(process)


def _starve(process: int) -> None:
    for _ in range(STARVED_ROUNDS):
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        signal.pidfd_send_signal(process, signal.SIGCONT)
        time.sleep(RUNNING_S)
