"""The cost of the worst bodies: how long a step of reading them takes, and how much memory."""

import time
import tracemalloc
from collections.abc import Generator

import pytest

from clipper.errors import ClipperError
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.inputs.record_reader import reader_of
from clipper.values.records import parse_type
from clipper.worker.frontend import limits
from clipper.worker.frontend.inference.invocations import read_csv, read_invocation
from clipper.worker.frontend.observe_body import ObserveReader
from clipper.worker.frontend.predict_body import BodyReader
from tests.worker.frontend.costly_bodies import COSTLY, Costly

# Processor time, of which a busy machine takes nothing; but its caches are shared, so the best of some tries counts.
MAX_STEP_S = 0.02
TRIES = 10


def read(case: Costly, body: bytes | bytearray) -> Generator[None, None, object]:
    reader = reader_of(parse_type(case.input_type))
    if case.action == "invocations":
        is_json = body.startswith(b"{")
        return read_invocation(reader, body) if is_json else read_csv(parse_type(case.input_type), reader, body)
    return (ObserveReader(reader) if case.action == "observe" else BodyReader(reader)).read(body)


def longest_step_s(steps: Generator[None, None, object]) -> float:
    longest_s = 0.0
    while True:
        started_s = time.process_time()
        try:
            next(steps)
        except (StopIteration, ClipperError):
            return max(longest_s, time.process_time() - started_s)
        longest_s = max(longest_s, time.process_time() - started_s)


# The longest that are read at once, the longest texts that are read whole, and the longest of all.
@pytest.mark.parametrize("size_bytes", [limits.DIRECT_BODY_BYTES, SHORT_TEXT_BYTES, limits.MAX_BODY_BYTES])
@pytest.mark.parametrize("case", COSTLY, ids=str)
def test_no_step_holds_the_loop_for_long(case: Costly, size_bytes: int) -> None:
    if size_bytes == limits.MAX_BODY_BYTES and "hard" in case.name:
        size_bytes //= 8  # two seconds, in steps like those of a smaller one
    body = case.of(size_bytes)
    for _ in range(TRIES):
        longest_s = longest_step_s(read(case, bytearray(body) if size_bytes > SHORT_TEXT_BYTES else body))
        if longest_s < MAX_STEP_S:
            return
    raise AssertionError(f"a step took {longest_s * 1000:.1f} ms")


@pytest.mark.long
@pytest.mark.parametrize("case", COSTLY, ids=str)
def test_memory_is_a_few_times_the_body(case: Costly) -> None:
    body = bytearray(case.of(1 << 20))
    tracemalloc.start()
    try:
        longest_step_s(read(case, body))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The body itself was there before.
    assert peak_bytes < 3 * len(body) + (10 << 20)
