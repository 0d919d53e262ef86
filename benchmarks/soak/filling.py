"""A burst that fills what a worker keeps by count, so that its memory is judged once it is full at whatever rate."""

import json
import random

from benchmarks.harness.load import Answer, LoadClient, post
from benchmarks.soak.streams import LARGE_WIDTH, POOL, WIDTH
from clipper.worker.frontend.limits import MAX_KNOWN_HEADS
from clipper.worker.selection.contexts import MAX_CONTEXTS

IN_FLIGHT = 24
# Each worker gets about half of the connections; by this much more than its share one of them surely fills.
SURELY = 1.5
QUERIES_A_CONNECTION = 50
# So often all connections ask for the largest inputs at once: a container keeps what its largest batch took.
VOLLEY_EVERY = 2_000


def burst(workers: int) -> int:
    """Queries, each in a context of its own, with which every worker has seen as many as it keeps."""
    return round(workers * MAX_CONTEXTS * SURELY)


class Filling:
    """Requests ``0..burst``: equal inputs in contexts of their own, and volleys of the largest inputs.

    Heads differ by their bodies' lengths: half as many again as a worker knows, of whatever come to each.

    Args:
        name: of the burst; contexts of another have other names.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        source = random.Random()
        self._pool = [json.dumps([round(source.random(), 4) for _ in range(WIDTH)]) for _ in range(POOL)]
        self._large = json.dumps([0.123456789] * LARGE_WIDTH)

    def of(self, number: int) -> bytes:
        if number % VOLLEY_EVERY < IN_FLIGHT:
            request = post("/large/predict", f'{{"input":{self._large}}}'.encode())
        else:
            padding = " " * (number % round(MAX_KNOWN_HEADS * SURELY))
            body = f'{{"input":{self._pool[number % POOL]},"context":"{self._name}-{number}"{padding}}}'
            request = post("/chosen/predict", body.encode())
        if number % QUERIES_A_CONNECTION == QUERIES_A_CONNECTION - 1:
            # The next may be to another worker.
            return request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        return request


async def fill(host: str, port: int, workers: int, name: str) -> None:
    """Send the burst, as fast as it is answered.

    Raises:
        ExceptionGroup: of OSErrors: the server cannot be reached.
        TimeoutError: the last answers did not come.
    """
    requests, count = Filling(name), burst(workers)
    number = -1

    def ask() -> tuple[None, bytes]:
        nonlocal number
        number += 1
        if number == count:
            client.stop()
        return None, requests.of(number)

    def ignore(answer: Answer[None]) -> None:
        """What is lost is told of the streams beside it."""

    client = LoadClient[None](host, port, IN_FLIGHT, ask, ignore)
    await client.run()
