"""The method ``ModelInfer``: each row of the request's tensors is a query."""

import msgspec

from clipper.errors import DeadlineExceeded
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.inference.framing import error_json
from clipper.worker.frontend.inference.infer import DIRECT_ROW_BYTES, Infer, Reply
from clipper.worker.frontend.inference.plans import MAX_PLANS
from clipper.worker.frontend.inference.requests import InferRequest, Plan
from clipper.worker.frontend.long_work import LongWork, Steps, done
from clipper.worker.frontend.rpc.answers import MessageCodec
from clipper.worker.frontend.rpc.requests import RAW_INPUT_CONTENTS, read_request
from clipper.worker.frontend.rpc.wire import fields
from clipper.worker.selection.application import Application

# The time that the answer needs to reach its client before the client's deadline.
RETURN_S = 0.001
# Remembered beginnings of messages are shorter: they describe a single tensor.
MAX_HEAD_BYTES = 2048


class InferCall(msgspec.Struct, gc=False, eq=False):
    """The endpoint of equal infer calls.

    Attributes:
        plan: the plan in the message's beginning, if its end, the last ``raw_input_contents``, is a single raw row;
            None if the message has to be read.
        head_bytes: the length of that beginning.
        deadline_s: the client's deadline, on the loop's clock; None if it has none.
        arrived_s, is_late: see ``Endpoint.handle``.
    """

    methods = ("POST",)
    error_json = staticmethod(error_json)

    of: "ModelInfer"
    version: str | None
    slo_s: float
    plan: Plan | None = None
    head_bytes: int = 0
    deadline_s: float | None = None
    arrived_s: float = 0.0
    is_late: bool = False

    @property
    def max_body_bytes(self) -> int:
        return self.of.infer.max_body_bytes

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        self.is_late = is_late
        self.arrived_s = arrived_s
        self.of.handle(exchange, bytes(body), self)

    def limited(self, plan: Plan) -> Plan:
        """Return the plan with the client's deadline if that is sooner. Raises DeadlineExceeded if it is over."""
        if self.deadline_s is None:
            return plan
        left_s = self.deadline_s - self.arrived_s - RETURN_S
        if left_s <= 0:
            raise DeadlineExceeded("the call's deadline has passed before a model was asked")
        if plan.timeout_s is not None and plan.timeout_s <= left_s:
            return plan
        return msgspec.structs.replace(plan, timeout_s=left_s)


class ModelInfer:
    """Answers an application's infer calls."""

    def __init__(self, application: Application, work: LongWork, max_body_bytes: int, known: "KnownHeads") -> None:
        self.application = application
        self.infer = Infer(application, work, max_body_bytes, MessageCodec(application.name))
        self.known = known
        self.slo_s = application.terms.slo_s

    def handle(self, exchange: Exchange, message: bytes, asked: InferCall) -> None:
        infer = self.infer
        steps: Steps | None = None
        if asked.plan is not None:
            self._ask_one(exchange, message[asked.head_bytes :], None, asked.plan, asked)
        elif len(message) <= limits.DIRECT_BODY_BYTES:
            plan, request = done(read_request(infer.reader, memoryview(message), infer.max_body_bytes))
            steps = self._ask(exchange, message, plan, request, asked)
        else:
            asked.is_late = False  # a long message is asked however late it is
            steps = self._read_then_ask(exchange, message, asked)
        if steps is not None:
            infer.work.begin(exchange, len(message), steps, asks=infer)

    def _read_then_ask(self, exchange: Exchange, message: bytes, asked: InferCall) -> Steps:
        infer = self.infer
        plan, request = yield from read_request(infer.reader, memoryview(message), infer.max_body_bytes)
        yield from self._ask(exchange, message, plan, request, asked) or ()

    def _ask(
        self, exchange: Exchange, message: bytes, plan: Plan, request: InferRequest, asked: InferCall
    ) -> Steps | None:
        """Ask the only row, or return the steps that ask several rows."""
        if plan.row_bytes is not None and plan.row_bytes <= DIRECT_ROW_BYTES:
            self.known.remember(message, plan.row_bytes, self, asked.version, plan)
        if plan.rows > 1:
            return self.infer.ask_all(exchange, request, asked.limited(plan), asked.version, asked.arrived_s)
        self._ask_one(exchange, request.rows[0], request.features[0], plan, asked)
        return None

    def _ask_one(self, exchange: Exchange, row: bytes, features: bytes | None, plan: Plan, asked: InferCall) -> None:
        if asked.is_late:
            self.application.shed(Reply(exchange, self.infer, asked.version, plan.form))
        else:
            self.infer.ask_one(exchange, row, features, asked.limited(plan), asked.version, asked.arrived_s)


class KnownHeads:
    """Remembers the plans of infer requests that differ only in their row.

    They are looked up by their requests' length, since all requests of a client have the same.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[bytes, ModelInfer, str | None, Plan]] = {}

    def find(self, message: bytes) -> InferCall | None:
        found = self._found.get(len(message))
        if found is None or not message.startswith(found[0]):
            return None
        head, of, version, plan = found
        return InferCall(of, version, of.slo_s, plan, len(head))

    def forget(self) -> None:
        self._found.clear()

    def remember(self, message: bytes, row_bytes: int, of: ModelInfer, version: str | None, plan: Plan) -> None:
        head = message[: len(message) - row_bytes]
        if plan.form.id or len(head) > MAX_HEAD_BYTES:
            return
        last = 0, 0
        for number, wire, value in fields(memoryview(message)):
            last = number, len(value) if wire == 2 else 0
        # The message has to end with the row, as clients write it.
        if last != (RAW_INPUT_CONTENTS, row_bytes):
            return
        if len(self._found) >= MAX_PLANS:
            self._found.clear()
        self._found[len(message)] = head, of, version, plan
