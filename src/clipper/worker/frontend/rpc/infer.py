"""``ModelInfer``: each row of the tensors that come is a query."""

from collections import Counter

import msgspec

from clipper.errors import ClipperError, DeadlineExceeded
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.inference.errors import error_json
from clipper.worker.frontend.inference.infer import DIRECT_ROW_BYTES, MAX_PLAN_BYTES, MAX_PLANS, Infer, Reply
from clipper.worker.frontend.inference.requests import Plan
from clipper.worker.frontend.long_work import LongWork, Steps, done
from clipper.worker.frontend.rpc.answers import MessageCodec
from clipper.worker.frontend.rpc.requests import RAW_INPUT_CONTENTS, read_request
from clipper.worker.frontend.rpc.wire import fields
from clipper.worker.selection.application import Application

# What is left for the answer to get to its client before the client's deadline.
RETURN_S = 0.001


class ModelInfer:
    """One application's infer calls."""

    def __init__(
        self, application: Application, refused: Counter[str], work: LongWork, max_body_bytes: int, known: "KnownHeads"
    ) -> None:
        self.application = application
        self.infer = Infer(application, refused, work, max_body_bytes, MessageCodec(application.name))
        self.known = known
        self.slo_s = application.terms.slo_s

    def handle(self, exchange: Exchange, message: bytes, arrived_s: float, asked: "Asked") -> None:
        infer = self.infer
        try:
            if len(message) <= limits.DIRECT_BODY_BYTES or asked.plan is not None:
                self._answer_direct(exchange, message, arrived_s, asked)
            else:
                steps = self._answer_in_steps(exchange, message, arrived_s, asked)
                infer.work.begin(exchange, len(message), steps, asks=infer)
        except ClipperError as error:
            infer.refuse(exchange, error)

    def _answer_direct(self, exchange: Exchange, message: bytes, arrived_s: float, asked: "Asked") -> None:
        infer, plan = self.infer, asked.plan
        row: bytes | None
        features = None
        if plan is not None:
            row = message[asked.head_bytes :]
        else:
            plan, request, data = done(read_request(infer.reader, memoryview(message), infer.max_body_bytes))
            if request is not None and plan.rows > 1:
                steps = infer.ask_all(exchange, request, asked.limited(plan), asked.version, arrived_s)
                infer.work.begin(exchange, len(message), self._refused_in_steps(exchange, steps), asks=infer)
                return
            if data is not None:
                self.known.remember(message, data, self, asked.version, plan)
                row = bytes(data)
            else:
                assert request is not None
                row, features = request.rows[0], request.features[0]
        if asked.is_late:
            self.application.shed(Reply(exchange, infer, asked.version, plan.form))
        else:
            infer.ask_one(exchange, row, features, asked.limited(plan), asked.version, arrived_s)

    def _answer_in_steps(self, exchange: Exchange, message: bytes, arrived_s: float, asked: "Asked") -> Steps:
        infer = self.infer
        try:
            plan, request, data = yield from read_request(infer.reader, memoryview(message), infer.max_body_bytes)
            if data is not None:
                if len(data) <= DIRECT_ROW_BYTES:
                    self.known.remember(message, data, self, asked.version, plan)
                infer.ask_one(exchange, bytes(data), None, asked.limited(plan), asked.version, arrived_s)
                return
            assert request is not None
            if plan.rows == 1:
                own, features = request.rows[0], request.features[0]
                infer.ask_one(exchange, own, features, asked.limited(plan), asked.version, arrived_s)
            else:
                yield from infer.ask_all(exchange, request, asked.limited(plan), asked.version, arrived_s)
        except ClipperError as error:
            infer.refuse(exchange, error)

    def _refused_in_steps(self, exchange: Exchange, steps: Steps) -> Steps:
        try:
            yield from steps
        except ClipperError as error:
            self.infer.refuse(exchange, error)


class Asked(msgspec.Struct, gc=False, eq=False):
    """What a call asks: the endpoint of infer calls that are alike.

    Attributes:
        plan: what the message says up to its last ``raw_input_contents``, which is one row as it is; None if that has
            to be read.
        head_bytes: how long that is.
        deadline_s: the client's, on the loop's clock; None if it has none.
    """

    methods = ("POST",)
    error_json = staticmethod(error_json)

    of: ModelInfer
    version: str | None
    slo_s: float
    plan: Plan | None = None
    head_bytes: int = 0
    deadline_s: float | None = None
    now_s: float = 0.0
    is_late: bool = False

    @property
    def max_body_bytes(self) -> int:
        return self.of.infer.max_body_bytes

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        self.is_late = is_late
        self.now_s = arrived_s
        self.of.handle(exchange, bytes(body), arrived_s, self)

    def limited(self, plan: Plan) -> Plan:
        """The plan, whose time-out is the client's if that is sooner. Raises DeadlineExceeded if it is over."""
        if self.deadline_s is None:
            return plan
        left_s = self.deadline_s - self.now_s - RETURN_S
        if left_s <= 0:
            raise DeadlineExceeded("the call's deadline is over before it was asked")
        if plan.timeout_s is not None and plan.timeout_s <= left_s:
            return plan
        return msgspec.structs.replace(plan, timeout_s=left_s)


class KnownHeads:
    """What infer requests say that differ in nothing but their row: they need not be read again.

    They are looked up by their length, of which a client's are the same.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[bytes, ModelInfer, str | None, Plan]] = {}

    def find(self, message: bytes) -> Asked | None:
        found = self._found.get(len(message))
        if found is None or not message.startswith(found[0]):
            return None
        head, of, version, plan = found
        return Asked(of, version, of.slo_s, plan, len(head))

    def forget(self) -> None:
        self._found.clear()

    def remember(self, message: bytes, row: memoryview, of: ModelInfer, version: str | None, plan: Plan) -> None:
        head = message[: len(message) - len(row)]
        if plan.form.id or len(head) > MAX_PLAN_BYTES:
            return
        last = 0, 0
        for number, wire, value in fields(memoryview(message)):
            last = number, len(value) if wire == 2 else 0
        # The row has to be what the message ends with, as clients write it.
        if last != (RAW_INPUT_CONTENTS, len(row)):
            return
        if len(self._found) >= MAX_PLANS:
            self._found.clear()
        self._found[len(message)] = head, of, version, plan
