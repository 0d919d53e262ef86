"""The body of an infer request: JSON that describes tensors, and for binary tensors their bytes after the JSON.

The request's head has the length of the JSON if bytes follow it (the binary tensor data extension). A ``Plan`` is what
the JSON says. Requests with equal shapes have the same JSON, so it need not be parsed again.
"""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from math import inf, prod
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.json_parts import Extent, find_fields, find_items
from clipper.values.inputs.numbers import show
from clipper.values.records import MAX_FIELDS, ValueType
from clipper.values.types import DType, InputType
from clipper.worker.frontend.inference.input_tensors import OneTensor, decoding, input_tensors
from clipper.worker.frontend.inference.tensor_data import Announced, Run, read_tensors, runs_of
from clipper.worker.frontend.inference.tensors import TensorReader, check_shape, datatype_of
from clipper.worker.frontend.predict_body import MAX_FIELD_BYTES, compose, read_context

# The names of the model's input, and of the input with the features for a policy.
INPUT, FEATURES = "input", "features"
OUTPUT = "output"
# Further outputs that a request may ask for by name: an element for each row.
COLUMNS = ("query_id", "confidence", "default", "default_reason", "models")
# Longer than any UUID. The id is repeated in the answer.
MAX_ID_LENGTH = 200
# Enough for a record's fields and its features, and for unknown tensors, which an error can then name.
MAX_TENSORS = MAX_FIELDS + 16
_MOST_BYTES = dict.fromkeys(("id", "parameters", "outputs"), MAX_FIELD_BYTES)
_MOST_TENSOR_BYTES = dict.fromkeys(("name", "datatype", "shape", "parameters"), MAX_FIELD_BYTES)
_EXPECTED = 'expected {"inputs": [{"name", "shape", "datatype", "data"}]}'


class TensorHead(Struct, frozen=True):
    """A tensor in ``inputs``. Unknown keys are ignored, as the protocol demands."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: Raw | UnsetType = UNSET


class OutputHead(Struct, frozen=True):
    name: str
    parameters: dict[str, Any] | None = None


class InferHead(Struct, frozen=True):
    """The JSON of a request."""

    inputs: list[TensorHead] = []
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[OutputHead] | None = None


class Beside(Struct, frozen=True):
    """A tensor's data outside of the JSON and the bytes behind it: separate bytes, as in messages of gRPC."""

    size_bytes: int


# A tensor of a request, and its data or the place of its data.
Described = tuple[TensorHead, Raw | Extent | Beside | None]
_decode = msgspec.json.Decoder(InferHead).decode
_decode_tensor = msgspec.json.Decoder(TensorHead).decode


class AnswerForm(Struct, frozen=True):
    """The form of the answer that a request asks for.

    Attributes:
        outputs: the name of each requested output, and whether it is binary, in order; empty if none is named.
        id: the id that the answer repeats.
        is_binary: whether the outputs are binary, if none is named.
    """

    outputs: tuple[tuple[str, bool], ...] = ()
    id: str | None = None
    is_binary: bool = False


class Plan(Struct, frozen=True):
    """The content of a request's JSON, without the data.

    Attributes:
        order: the tensors as they come in the request.
        sizes: of their binary data: those of ``order``, unless the plan is used again.
        has_features: whether one of them has the features.
        row_bytes: the row's size, if the whole binary data is a single raw row; else None.
        is_raw: whether there is no JSON. A single BYTES element then has no length before it.
        is_binary: whether all data is binary: then the plan does not depend on the place of the JSON, and can be used
            again.
        runs: the tensors by the steps in which they are read.
    """

    rows: int
    order: tuple[Announced, ...]
    form: AnswerForm
    context: str | None = None
    timeout_s: float | None = None
    row_bytes: int | None = None
    has_features: bool = False
    is_raw: bool = False
    is_binary: bool = False
    sizes: tuple[int, ...] = ()
    runs: tuple[Run, ...] = ()

    @property
    def most_bytes(self) -> float:
        """A bound on the values of the tensors in the types of their fields; infinite with data in JSON."""
        # FP16 may become float64, and a byte int64.
        return 8 * sum(self.sizes) if self.is_binary else inf


class InferRequest(Struct, frozen=True):
    """An infer request that was read: a row for each input, with its features."""

    rows: list[bytes]
    features: Sequence[bytes | None]


class RequestReader:
    """Reads the infer requests of an application.

    Args:
        least_timeout_us: a shorter timeout counts as none.
        check_output: raises WrongInput if there is no output of this name.
    """

    def __init__(
        self,
        input_type: ValueType,
        features_size: int | None = None,
        must_be_finite: bool = False,
        least_timeout_us: int = 0,
        check_output: Callable[[str], None] = lambda name: None,
        null_is_nan: bool = False,
        ignores_unknown: bool = False,
    ) -> None:
        self._check_output = check_output
        self._least_timeout_us = least_timeout_us
        self._input = input_tensors(input_type, must_be_finite, null_is_nan, ignores_unknown)
        self._features_size = features_size
        self._features = TensorReader(InputType(DType.FLOAT64, (features_size or 1,)), must_be_finite=True)

    def plan(self, text: bytes) -> Plan:
        """Return the plan for short JSON. Raises MalformedRequest or WrongInput."""
        return self.plan_of(*read_short_json(text))

    def plan_raw(self, size_bytes: int) -> Plan:
        """Plan a request without JSON: one input, a binary answer. Raises WrongInput if its shape stays open."""
        if not isinstance(self._input, OneTensor):
            raise WrongInput("request has no JSON, and a record has a tensor for each field: expected JSON")
        reader = self._input.reader
        input_type = reader.type
        datatype = datatype_of(input_type.dtype)
        sizes = [size or 0 for size in input_type.shape]
        if sizes.count(0) == 1:
            sizes[sizes.index(0)] = size_bytes // (datatype.size_bytes * prod(filter(None, sizes)))
        elif 0 in sizes:
            raise WrongInput(
                f"request has no JSON: the size of an input of {input_type} does not tell its shape: expected JSON"
            )
        tensor = reader.announce(INPUT, datatype.name, [1, *sizes])
        expected = reader.size_bytes(tensor)
        if expected not in (None, size_bytes):
            raise WrongInput(f"request without JSON has {size_bytes} bytes: expected {expected} for {input_type}")
        row_bytes = size_bytes if reader.is_as_it_is(tensor) else None
        form = AnswerForm(is_binary=True)
        order = (Announced(tensor, reader, size_bytes),)
        return Plan(1, order, form, row_bytes=row_bytes, is_raw=True, is_binary=True, sizes=(size_bytes,))

    def read(self, plan: Plan, body: bytes | bytearray, json_bytes: int) -> Generator[None, None, InferRequest]:
        """Return the rows of a request, in steps of a few milliseconds. Raises MalformedRequest or WrongInput."""
        if plan.is_raw and plan.order[0].tensor.datatype.numpy is None:
            element = yield from plan.order[0].reader.element(plan.order[0].tensor, memoryview(body))
            return InferRequest([element], [None])
        found = yield from read_tensors(plan.order, plan.sizes, body, json_bytes, plan.runs)
        return (yield from self.request_of(plan, found))

    def request_of(self, plan: Plan, found: dict[str, Sequence[Any]]) -> Generator[None, None, InferRequest]:
        """Return the request's rows. ``found``: the content of each tensor, by its name."""
        features = found.pop(FEATURES) if plan.has_features else [None] * plan.rows
        return InferRequest((yield from self._input.rows(found, plan.rows, plan.most_bytes)), features)

    def plan_of(self, head: InferHead, found: Sequence[Described]) -> Plan:
        """Return the plan for tensors with the places of their data. Raises MalformedRequest or WrongInput."""
        names = [tensor.name for tensor, _ in found]
        repeated = next((name for name, count in Counter(names).items() if count > 1), None)
        if repeated is not None:
            raise MalformedRequest(f"request has input {repeated[:100]!r} twice: expected it once")
        has_features = self._features_size is not None
        if has_features and FEATURES not in names:
            shown = ", ".join(map(repr, names[:20]))
            raise WrongInput(f"request has the inputs {shown[:200]}: expected also {FEATURES!r}")
        readers = dict(self._input.readers([name for name in names if not has_features or name != FEATURES]))
        if has_features:
            readers[FEATURES] = self._features
        order = tuple(announce(tensor, data, readers[tensor.name]) for tensor, data in found)
        rows = check_rows(order)
        parameters = head.parameters or {}
        # To ignore these parameters would lose the state that the client relies on.
        if any(map(parameters.get, ("sequence_id", "sequence_start", "sequence_end"))):
            raise WrongInput(
                "request is part of a sequence, which is not supported: applications have contexts instead"
            )
        is_binary = all(each.data is None for each in order)
        is_alone = len(order) == rows == 1 and order[0].reader.is_as_it_is(order[0].tensor)
        return Plan(
            rows,
            order,
            _answer_form(head, self._check_output),
            context_of(parameters),
            _timeout_s(parameters.get("timeout"), self._least_timeout_us),
            order[0].size_bytes if is_alone and is_binary else None,
            has_features,
            is_binary=is_binary,
            sizes=tuple([each.size_bytes for each in order]),
            runs=runs_of(order),
        )


def check_rows(order: Sequence[Announced]) -> int:
    """Return the number of inputs. Raises WrongInput if the tensors have different numbers of rows."""
    rows = {each.tensor.name: each.tensor.rows for each in order if not each.reader.is_ignored}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{count} rows of {name!r}" for name, count in rows.items())
        raise WrongInput(f"request has {counts[:200]}: expected as many of each")
    if not rows:
        raise WrongInput("request has no tensor of an input: expected at least one, whose rows count the inputs")
    return next(iter(rows.values()))


def read_short_json(text: bytes) -> tuple[InferHead, Sequence[Described]]:
    """Return short JSON's content, and each tensor with its data. Raises MalformedRequest."""
    head = _parse(text)
    if not 1 <= len(head.inputs) <= MAX_TENSORS:
        raise MalformedRequest(f"request has {len(head.inputs)} inputs: {_EXPECTED}")
    return head, [(each, None if isinstance(each.data, UnsetType) else each.data) for each in head.inputs]


def read_long_json(text: bytearray, stop: int) -> Generator[None, None, tuple[InferHead, Sequence[Described]]]:
    """Return the content of long JSON in ``text[:stop]``, and the place of each tensor's data.

    It takes steps of a few milliseconds. Raises MalformedRequest if the JSON is not an infer request.
    """
    fields = yield from find_fields(text, 0, stop)
    if "inputs" not in fields:
        raise MalformedRequest(f"request has no inputs: {_EXPECTED}")
    extents = yield from find_items(text, *fields["inputs"], MAX_TENSORS)
    if not extents:
        count = f"over {MAX_TENSORS}" if extents is None else "no"
        raise MalformedRequest(f"request has {count} inputs: {_EXPECTED}")
    found: list[Described] = []
    for extent in extents:
        parts = yield from find_fields(text, *extent)
        try:
            tensor = _decode_tensor(compose(text, parts, _MOST_TENSOR_BYTES))
        except NOT_JSON as error:
            raise MalformedRequest(f"request has an input that is not valid: {error}: {_EXPECTED}") from error
        found.append((tensor, parts.get("data")))
        yield
    return _parse(compose(text, fields, _MOST_BYTES)), found


def _parse(text: bytes) -> InferHead:
    try:
        return _decode(text)
    except NOT_JSON as error:
        raise MalformedRequest(f"body is not an infer request: {error}: {_EXPECTED}") from error


def announce(head: TensorHead, data: "Raw | Extent | Beside | None", reader: TensorReader) -> Announced:
    """Check a tensor's description, and the place of its data. Raises MalformedRequest or WrongInput."""
    name, parameters = head.name[:100], head.parameters or {}
    check_shape(name, head.shape)
    check_supported(head)
    size = parameters.get("binary_data_size")
    told = f"binary_data_size {size}"
    if isinstance(data, Beside):
        size, told, data = data.size_bytes, f"{data.size_bytes} bytes", None
    if (size is None) == (data is None):
        both = "neither data nor" if size is None else "both data and"
        raise MalformedRequest(f"input {name!r} has {both} binary_data_size: expected one of them")
    if size is not None and (type(size) is not int or size < 0):
        raise MalformedRequest(f"input {name!r} has binary_data_size {show(size)}: expected a number of bytes")
    if head.datatype == "BYTES":
        reader = decoding(reader, parameters.get("content_type"))
    tensor = reader.announce(name, head.datatype, head.shape)
    expected = reader.size_bytes(tensor)
    if size is not None and expected is not None and size != expected:
        raise WrongInput(f"input {name!r} has {told}: expected {expected} for its shape")
    return Announced(tensor, reader, size or 0, data)


def check_supported(head: TensorHead) -> None:
    """Raise WrongInput if a tensor's data is not in the request, but in memory that client and server share."""
    for unsupported in ("shared_memory_region", "classification"):
        if unsupported in (head.parameters or {}):
            raise WrongInput(f"input {head.name[:100]!r} has {unsupported}, which is not supported: expected data")


def context_of(parameters: dict[str, Any]) -> str | None:
    """Return the context in the parameters. Raises MalformedRequest if it is not a context."""
    value = parameters.get("context")
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
        raise MalformedRequest("the parameter context is neither a string nor a whole number")
    return read_context(value, None)


def _timeout_s(value: object, least_us: int) -> float | None:
    """Return a timeout given in microseconds, as in the protocol. 0, or less than ``least_us``, means none."""
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise MalformedRequest("the parameter timeout is not a number of microseconds: expected 0 or more")
    return None if value < least_us else value / 1_000_000


def _answer_form(head: InferHead, check_output: Callable[[str], None]) -> AnswerForm:
    if head.id is not None and len(head.id) > MAX_ID_LENGTH:
        raise MalformedRequest(f"id has {len(head.id)} characters: expected at most {MAX_ID_LENGTH}")
    is_binary = _boolean(head.parameters, "binary_data_output", otherwise=False)
    if not head.outputs:
        return AnswerForm((), head.id, is_binary)
    outputs = {}
    for output in head.outputs:
        name = output.name
        check_output(name)
        if name in outputs:
            raise MalformedRequest(f"request asks for output {name!r} twice: expected it once")
        for unsupported in ("shared_memory_region", "classification"):
            if (output.parameters or {}).get(unsupported):
                raise WrongInput(f"output {name!r} has {unsupported}, which is not supported: leave it out")
        outputs[name] = _boolean(output.parameters, "binary_data", otherwise=is_binary)
    return AnswerForm(tuple(outputs.items()), head.id)


def _boolean(parameters: dict[str, Any] | None, name: str, *, otherwise: bool) -> bool:
    value = (parameters or {}).get(name, otherwise)
    if not isinstance(value, bool):
        raise MalformedRequest(f"the parameter {name} is neither true nor false")
    return value
