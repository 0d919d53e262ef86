"""Feedback as tensors: the inputs or query ids, and the labels or rewards, with a row of each for a piece."""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct, UnsetType

from clipper.control.feedback import Feedback
from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.json_parts import find_fields
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.inputs.numbers import NUMPY
from clipper.values.records import ValueType
from clipper.values.types import DType, InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.inference.input_tensors import input_tensors
from clipper.worker.frontend.inference.requests import (
    FEATURES,
    INPUT,
    Described,
    InferHead,
    TensorHead,
    announce,
    check_rows,
    context_of,
    read_long_json,
    read_short_json,
)
from clipper.worker.frontend.inference.tensor_data import Announced, read_tensors
from clipper.worker.frontend.inference.tensors import TensorReader, check_shape
from clipper.worker.frontend.observe_body import MAX_LABEL_BYTES, feedback_id
from clipper.worker.frontend.predict_body import read_context

QUERY_ID, LABEL, REWARD, ID, CONTEXT = "query_id", "label", "reward", "id", "context"
# Tensors with a row for each piece of feedback. Tensors of other names have the inputs; a record's field of such a
# name is sent as ``input.NAME``.
COLUMNS = (QUERY_ID, LABEL, REWARD, ID, CONTEXT, FEATURES)
# Making this many pieces takes less than a millisecond.
_PIECES_PER_STEP = 200
_EXPECTED = (
    f"expected a tensor with the inputs or {QUERY_ID!r}, and {LABEL!r} or {REWARD!r}; "
    f"{FEATURES!r}, {ID!r} and {CONTEXT!r} may come with them"
)
_encode = msgspec.json.encode


class _Top(Struct, frozen=True):
    inputs: Raw | UnsetType = msgspec.UNSET


def has_tensors(body: bytes | bytearray) -> Generator[None, None, bool]:
    """Whether a body's JSON describes tensors, in steps of some milliseconds. Raises MalformedRequest."""
    if isinstance(body, bytearray) and len(body) > SHORT_TEXT_BYTES:
        return "inputs" in (yield from find_fields(body, 0, len(body)))
    try:
        return not isinstance(msgspec.json.decode(body, type=_Top).inputs, UnsetType)
    except NOT_JSON as error:
        raise MalformedRequest(f"body is not an observe call: {error}: {_EXPECTED}") from error


class FeedbackReader:
    """Reads an application's feedback, with ``features_size`` features a query; None if it takes none."""

    def __init__(
        self,
        input_type: ValueType,
        features_size: int | None = None,
        must_be_finite: bool = False,
        null_is_nan: bool = False,
        ignores_unknown: bool = False,
    ) -> None:
        self._takes_features = features_size is not None
        self._input = input_tensors(input_type, must_be_finite, null_is_nan, ignores_unknown)
        text, features = InputType(DType.STRING), InputType(DType.FLOAT64, (features_size or 1,))
        self._readers = {
            QUERY_ID: TensorReader(InputType(DType.INT64, ())),
            REWARD: TensorReader(InputType(DType.FLOAT64, ()), must_be_finite=True),
            ID: TensorReader(text),
            CONTEXT: TensorReader(text),
            FEATURES: TensorReader(features, must_be_finite=True),
        }

    def read(self, body: bytes | bytearray, json_bytes: int) -> Generator[None, None, list[Feedback]]:
        """Return the feedback in a request, in steps of a few milliseconds at most.

        Raises MalformedRequest or WrongInput. ``body``: JSON that describes the tensors, and after it their bytes.
        """
        if json_bytes > limits.DIRECT_BODY_BYTES:
            body = body if isinstance(body, bytearray) else bytearray(body)
            head, found = yield from read_long_json(body, json_bytes)
        else:
            head, found = read_short_json(bytes(body[:json_bytes]))
        order = self._announced(found)
        count = check_rows(order)
        columns = yield from read_tensors(order, [each.size_bytes for each in order], body, json_bytes)
        inputs = {_field_of(name): columns.pop(name) for name in list(columns) if name not in COLUMNS}
        if inputs:
            columns[INPUT] = yield from self._input.rows(inputs, count)
        label = next((each for each in order if each.tensor.name == LABEL), None)
        return (yield from self._made(columns, count, label, head))

    def _announced(self, found: Sequence[Described]) -> list[Announced]:
        """Return the checked tensors in their order."""
        names = [tensor.name for tensor, _ in found]
        if (twice := next((name for name, count in Counter(names).items() if count > 1), None)) is not None:
            raise MalformedRequest(f"request has two tensors for {twice[:100]}: {_EXPECTED}")
        inputs = [name for name in names if name not in COLUMNS]
        shown = ", ".join(names[:20])[:200]
        if (LABEL in names) == (REWARD in names) or bool(inputs) == (QUERY_ID in names):
            raise MalformedRequest(f"request has the tensors {shown}: {_EXPECTED}")
        if REWARD in names and inputs:
            raise MalformedRequest(
                f"a reward is for the answer to a query: expected {QUERY_ID!r}, which came with the answer"
            )
        needs_features = self._takes_features and bool(inputs)
        if (FEATURES in names) != needs_features:
            wanted = (
                f"inputs of this application come with {FEATURES!r}" if needs_features else f"expected no {FEATURES!r}"
            )
            raise WrongInput(f"request has the tensors {shown}: {wanted}")
        readers = self._readers | {tensor.name: _label_reader(tensor) for tensor, _ in found if tensor.name == LABEL}
        if inputs:
            fields = {_field_of(name): name for name in inputs}
            readers |= {fields[name]: each for name, each in self._input.readers(list(fields)).items()}
        return [announce(tensor, data, readers[tensor.name]) for tensor, data in found]

    def _made(
        self, rows: Mapping[str, Sequence[Any]], count: int, label: Announced | None, head: InferHead
    ) -> Generator[None, None, list[Feedback]]:
        shared = context_of(head.parameters or {})
        made: list[Feedback] = []
        for index in range(count):
            piece = {name: column[index] for name, column in rows.items()}
            query_id = _number(piece.get(QUERY_ID), DType.INT64)
            reward = _number(piece.get(REWARD), DType.FLOAT64)
            context = read_context(piece[CONTEXT].decode(), None) if CONTEXT in piece else shared
            name = feedback_id(piece[ID].decode() if ID in piece else None, query_id)
            text = _label(piece[LABEL], label) if label is not None else None
            made.append(Feedback(name, query_id, piece.get(INPUT), context, text, reward, piece.get(FEATURES)))
            if index % _PIECES_PER_STEP == _PIECES_PER_STEP - 1 or (text is not None and len(text) > 10_000):
                yield
        return made


def _field_of(name: str) -> str:
    """Return the field that an input's tensor is for."""
    own = name.removeprefix(f"{INPUT}.")
    return own if own in COLUMNS else name


def _label_reader(tensor: TensorHead) -> TensorReader:
    """Return a reader of labels, which have any shape. Whole numbers stay whole, and are compared as such."""
    check_shape(tensor.name, tensor.shape)
    # An element takes two characters at least, with its comma: refuse a label that is too long without converting it.
    if 2 * prod(tensor.shape[1:]) > MAX_LABEL_BYTES:
        raise MalformedRequest(f"label has more elements than fit into {MAX_LABEL_BYTES} bytes of JSON: expected fewer")
    if tensor.datatype == "BYTES":
        return TensorReader(InputType(DType.STRING))
    number = DType.INT64 if "INT" in tensor.datatype else DType.FLOAT64
    dtype = DType.BOOL if tensor.datatype == "BOOL" else number
    return TensorReader(InputType(dtype, tuple(tensor.shape[1:])), must_be_finite=True)


def _label(row: bytes, announced: Announced) -> bytes:
    """Return a label's JSON text."""
    input_type = announced.reader.type
    if input_type.dtype == DType.STRING:
        text = _encode(row.decode()) if len(row) <= MAX_LABEL_BYTES else row
    else:
        text = _encode(np.frombuffer(row, NUMPY[input_type.dtype]).reshape(announced.tensor.shape[1:]).tolist())
    if len(text) > MAX_LABEL_BYTES:
        raise MalformedRequest(f"label takes over {MAX_LABEL_BYTES} bytes as JSON: expected at most that")
    return text


def _number(row: bytes | None, dtype: DType) -> Any:
    return None if row is None else np.frombuffer(row, NUMPY[dtype]).item()
