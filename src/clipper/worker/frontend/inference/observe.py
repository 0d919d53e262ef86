"""Answers ``POST /v2/models/{app}/observe``, with the body of an observe call, or feedback as tensors."""

from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import Observe, Reading
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference.feedback import FeedbackReader, has_tensors
from clipper.worker.frontend.inference.framing import Framing, error_json, inflate
from clipper.worker.frontend.long_work import LongWork, done
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS

# The shortest piece of feedback in tensors: a byte of input and a byte of label.
_MIN_PIECE_BYTES = 2


class ObserveCall:
    """The endpoint for observe calls with the same head. ``reader`` reads those with tensors."""

    methods = ("POST",)
    error_json = staticmethod(error_json)

    def __init__(self, observe: Observe, reader: FeedbackReader, work: LongWork, head: Head) -> None:
        self._observe = observe
        self._reader = reader
        self._work = work
        self._framing = Framing(head)
        self.max_body_bytes = observe.max_body_bytes
        self.slo_s = observe.slo_s

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        framing = self._framing
        if framing.problem is not None:
            self._work.refuse(exchange, framing.problem)
            return
        is_short_json = not framing.encoding and framing.json_bytes is None and isinstance(body, bytes)
        if is_short_json and not done(has_tensors(body)):
            self._observe.handle(exchange, body, arrived_s, is_late)
            return
        pieces = MAX_OBSERVATIONS if framing.encoding else min(len(body) // _MIN_PIECE_BYTES, MAX_OBSERVATIONS)
        self._observe.learn_from(exchange, self._read(body), len(body), pieces, arrived_s)

    def _read(self, body: bytes | bytearray) -> Reading:
        framing, inflated_bytes, budget = self._framing, 0, self._work.budget
        if framing.encoding:
            body = yield from inflate(body, framing.encoding, self.max_body_bytes, budget)
            inflated_bytes = len(body)
        budget.held_bytes += inflated_bytes
        try:
            if framing.json_bytes is None and not (yield from has_tensors(body)):
                return (yield from self._observe.reader.read(body))
            found = yield from self._reader.read(body, framing.json_bytes_of(body))
            return [*found], len(found) > 1
        finally:
            budget.held_bytes -= inflated_bytes
