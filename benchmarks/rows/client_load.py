"""``python -m benchmarks.rows.client_load URL APPLICATION CLIENT FORM SECONDS``: asks with Clipper's own Python client.

``CLIENT`` is ``blocking``, one call at a time, ``async``, 32 calls at a time, or ``feedback``, one call at a time with
64 pieces of feedback. ``FORM`` is ``array`` or ``list``: 784 float32 that nobody has asked for before. Prints how many
queries or pieces were answered, and the processor time of this process for each in microseconds.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvloop

from clipper.base.tls.trust import ClientTls, Trust
from clipper.client.queries import AsyncQueries, Queries
from clipper.client.query_calls import Observed

CALLS = 32
PIECES = 64
_FEATURES = 784


def inputs(form: str) -> Iterator[Any]:
    """Different inputs without end; all but one number are the same, so that making them costs little."""
    row: Any = np.random.default_rng(5).random(_FEATURES, np.float32)
    row = row.tolist() if form == "list" else row
    for number in itertools.count(time.time_ns() % 1_000_000):
        row[0] = number
        yield row


def blocking(url: str, application: str, form: str, end_s: float) -> int:
    client = Queries(url, ClientTls(Trust()))
    answered = 0
    for each in inputs(form):
        if time.monotonic() > end_s:
            break
        client.predict(application, each)
        answered += 1
    return answered


def feedback(url: str, application: str, form: str, end_s: float) -> int:
    client = Queries(url, ClientTls(Trust()))
    answered, given = 0, inputs(form)
    while time.monotonic() < end_s:
        pieces = [{"input": each.copy(), "label": 1.5} for each in itertools.islice(given, PIECES)]
        answered += sum(isinstance(each, Observed) for each in client.observe_batch(application, pieces))
    return answered


async def concurrent(url: str, application: str, form: str, end_s: float) -> int:
    client = AsyncQueries(url, ClientTls(Trust()))
    given = inputs(form)

    async def ask() -> int:
        answered = 0
        while time.monotonic() < end_s:
            await client.predict(application, next(given))
            answered += 1
        return answered

    answered = sum(await asyncio.gather(*(ask() for _ in range(CALLS))))
    await client.close()
    return answered


def main(url: str, application: str, client: str, form: str, *, seconds: float) -> None:
    end_s, before_s = time.monotonic() + seconds, time.process_time()
    if client == "blocking":
        answered = blocking(url, application, form, end_s)
    elif client == "feedback":
        answered = feedback(url, application, form, end_s)
    else:
        answered = uvloop.run(concurrent(url, application, form, end_s))
    print(answered, (time.process_time() - before_s) / answered * 1e6)


if __name__ == "__main__":
    _, *given, seconds = sys.argv
    main(*given, seconds=float(seconds))
