"""Scores files: reads chunks, asks for their rows in several requests at a time, and writes them in their order."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from clipper.base.tls.expiry import duration
from clipper.cli.score.answers import Answers, read_answers
from clipper.cli.score.inputs import InputMaker
from clipper.cli.score.journal import Done, Journal
from clipper.cli.score.output import Layout
from clipper.cli.score.sources import READERS, Chunk, count_rows, reading
from clipper.errors import (
    DeadlineExceeded,
    NoReplica,
    Overloaded,
    ProtocolViolation,
    TooLarge,
    TooManyRequests,
    Unavailable,
    WrongInput,
)
from clipper.model.protocol.columns import PredictColumns, decode_predict_columns
from clipper.model.protocol.cutting import RowCutter
from clipper.model.protocol.frames import HEADER, HEADER_BYTES, Kind
from clipper.model.protocol.messages import Predict, decode_predict

# Requests in flight: some wait at the server while others are on their way, so that no replica waits for rows. This
# also bounds memory: each request holds a chunk.
IN_FLIGHT = 6
# A server that is down or overloaded is asked again for this long; then the job stops, and can resume later.
PATIENCE_S = 600.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 5.0
_TRY_AGAIN = (Overloaded, DeadlineExceeded, TooManyRequests, Unavailable, NoReplica)
_MOST_BYTES_A_ROW = 1024

Ask = Callable[[bytes], bytes]


class Progress(NamedTuple):
    """How far a job is. ``share`` is from 0 to 1; ``rows_per_s`` is that of this run."""

    rows: int
    failed: int
    share: float
    rows_per_s: float
    left_s: float | None

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", {duration(self.left_s)} left"
        failed = f", {self.failed:,} with an error" if self.failed else ""
        return f"{self.rows:,} rows ({self.share:.0%}){failed}, {self.rows_per_s:,.0f} rows/s{left}"


def score_files(
    sources: Sequence[Path],
    form: str,
    maker: InputMaker,
    layout: Layout,
    journal: Journal,
    ask: Ask,
    report: Callable[[Progress], None],
) -> Done:
    """Score the rows that the journal lacks; return the whole job's counts. Raises ClipperError; what is done stays."""
    asker = Asker(ask, time.monotonic, time.sleep)
    sizes = [path.stat().st_size if form != "parquet" else count_rows(path) for path in sources]
    before, began_s = journal.done, time.monotonic()
    waiting: deque[tuple[int, Chunk, Future[Answers]]] = deque()
    row_bytes = getattr(maker.type, "row_bytes", None) or _MOST_BYTES_A_ROW
    chunks = _chunks(sources, form, maker, journal, row_bytes)
    with ThreadPoolExecutor(IN_FLIGHT + 1) as threads:
        try:
            upcoming = threads.submit(next, chunks, None)  # is read while others are answered and written
            while True:
                while len(waiting) < IN_FLIGHT and (found := upcoming.result()) is not None:
                    source, chunk = found
                    waiting.append((source, chunk, threads.submit(asker.answers, chunk)))
                    upcoming = threads.submit(next, chunks, None)
                if not waiting:
                    return journal.done
                source, chunk, future = waiting.popleft()
                answers = future.result()
                data = layout.encode(chunk, answers)
                done = journal.done
                rows, failed = done.rows + chunk.rows, done.failed + len(answers.errors)
                journal.add(Done(source, chunk.position, rows, failed), data)
                report(_progress(journal.done, before, sizes, time.monotonic() - began_s))
        finally:
            asker.is_over = True
            threads.shutdown(wait=False, cancel_futures=True)


def _chunks(
    sources: Sequence[Path], form: str, maker: InputMaker, journal: Journal, row_bytes: int
) -> Iterator[tuple[int, Chunk]]:
    done = journal.done
    for number in range(done.source, len(sources)):
        position = done.position if number == done.source else 0
        with reading(sources[number]):
            for chunk in READERS[form](sources[number], maker, position, row_bytes):
                journal.check_source(number)
                yield number, chunk


def _progress(done: Done, before: Done, sizes: Sequence[int], took_s: float) -> Progress:
    whole = max(sum(sizes), 1)
    share = min(1.0, (sum(sizes[: done.source]) + done.position) / whole)
    began = min(1.0, (sum(sizes[: before.source]) + before.position) / whole)
    per_s = (done.rows - before.rows) / max(took_s, 1e-9)
    left_s = took_s * (1 - share) / (share - began) if share > began else None
    return Progress(done.rows, done.failed, share, per_s, left_s)


class Asker:
    """Asks for the rows of chunks, from any thread. ``is_over`` ends calls that wait for a server."""

    def __init__(self, ask: Ask, clock_s: Callable[[], float], pause: Callable[[float], None]) -> None:
        self._ask, self._clock_s, self._pause = ask, clock_s, pause
        self._answered_s = clock_s()
        self.is_over = False

    def answers(self, chunk: Chunk) -> Answers:
        """Return the answers to all rows of a chunk. Raises ClipperError if there are none now."""
        frame, wrong = chunk.make_inputs()
        if not frame:
            return Answers([None] * chunk.rows, dict(wrong))
        found = self._answers(frame)
        if not wrong:
            return found
        places = [row for row in range(chunk.rows) if row not in wrong]
        texts: list[bytes | None] = [None] * chunk.rows
        for place, text in zip(places, found.texts):
            texts[place] = text
        errors = dict(wrong) | {places[row]: text for row, text in found.errors.items()}
        return Answers(texts, errors, found.model, found.version)

    def _answers(self, frame: bytes) -> Answers:
        batch = _decoded(frame)
        try:
            return read_answers(self._patiently(frame), batch.rows)
        except (TooLarge, WrongInput, ProtocolViolation) as error:
            # The error concerns the rows together, or one of them: smaller blocks will tell.
            if batch.rows == 1:
                return Answers([None], {0: f"{error.code}: {error}"})
        cutter, half = RowCutter(batch), batch.rows // 2
        first, second = (self._answers(b"".join(cutter.encode(0, *rows))) for rows in ((0, half), (half, batch.rows)))
        errors = first.errors | {half + row: text for row, text in second.errors.items()}
        told = first if first.model else second
        return Answers([*first.texts, *second.texts], errors, told.model, told.version)

    def _patiently(self, frame: bytes) -> bytes:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                body = self._ask(frame)
            except _TRY_AGAIN as error:
                if self.is_over or self._clock_s() - self._answered_s > PATIENCE_S:
                    raise
                wanted_s = error.retry_after_s if isinstance(error, TooManyRequests) else 0.0
                self._pause(max(pause_s, wanted_s))
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            else:
                self._answered_s = self._clock_s()
                return body


def _decoded(frame: bytes) -> Predict | PredictColumns:
    body = memoryview(frame)[HEADER_BYTES:]
    if HEADER.unpack_from(frame)[1] == Kind.PREDICT_COLUMNS:
        return decode_predict_columns(body)
    return decode_predict(body)
