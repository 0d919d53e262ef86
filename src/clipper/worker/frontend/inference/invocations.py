"""Answers ``POST /{app}/invocations``: predict calls in the forms of MLflow's scoring server, for its clients.

As there, columns and ``params`` that the model does not have are ignored. The model's ``params`` are fields of its
record, each with a default.
"""

import csv
import re
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import msgspec

from clipper.errors import InvalidArgument, MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.cells import input_of_texts
from clipper.values.inputs.json_marks import outside_strings
from clipper.values.inputs.json_parts import find_fields, find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, Row, strip
from clipper.values.inputs.reader import Reader
from clipper.values.inputs.record_reader import RecordReader, Rows
from clipper.values.inputs.record_rows import check_rows_bytes
from clipper.values.outputs.output import Output, is_long, text_pieces
from clipper.values.records import ValueType
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.responses import Part, Parts
from clipper.worker.frontend.inference.answers import Answer, all_pieces
from clipper.worker.frontend.inference.infer import Codec, Infer
from clipper.worker.frontend.inference.output_tensors import OutputTensors, joined
from clipper.worker.frontend.inference.requests import AnswerForm, InferRequest, Plan
from clipper.worker.frontend.long_work import Steps
from clipper.worker.frontend.predict_body import MAX_CLIENT_BATCH, MAX_FIELD_BYTES, read_input

# A text, and the extent of a value in it.
Slice = tuple[bytearray, int, int]

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_EXPECTED = f"expected one of {', '.join(_FORMS)}"
# MLflow's clients write a missing number in Python's form, which is not JSON.
_NAN = b"NaN"
# Replacing in this many bytes takes a millisecond or two if they have nothing else.
_PIECE_BYTES = 32 * 1024
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# To split a line of this size takes a millisecond or two if it has nothing but commas. JSON may have longer rows.
_MAX_LINE_BYTES = 64 * 1024
# A text's line feeds cost time, too: a line of a row counts as so many bytes at least.
_LEAST_LINE_BYTES = 8
# Reading so many takes a second, also if all are blank.
_MAX_LINES = 1_000_000
_BOM = b"\xef\xbb\xbf"


def error_json(code: str, cause: str) -> bytes:
    """Return an error in the form of MLflow's scoring server."""
    return msgspec.json.encode({"error_code": code.upper(), "message": cause})


class Invocations:
    """An application's endpoint for bodies of one form. A failure of a row fails the request, as in MLflow."""

    methods = ("POST",)
    error_json = staticmethod(error_json)

    def __init__(self, infer: Infer, read: Callable[[Reader, bytes | bytearray], Rows]) -> None:
        self._infer, self._read = infer, read
        self._reader = infer.application.terms.make_reader(ignores_unknown=True)
        self._takes_features = infer.application.terms.features_size is not None
        self.max_body_bytes = infer.max_body_bytes
        self.slo_s = infer.application.terms.slo_s

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        self._infer.work.begin(exchange, len(body), self._answer_in_steps(exchange, body, arrived_s), asks=self)

    def _answer_in_steps(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float) -> Steps:
        if self._takes_features:
            raise WrongInput("the application takes features, which MLflow's forms have no place for: use /predict")
        rows = yield from self._read(self._reader, body)
        plan = Plan(len(rows), (), AnswerForm())
        if len(rows) == 1:
            self._infer.ask_one(exchange, rows[0], None, plan, None, arrived_s)
        else:
            request = InferRequest(rows, [None] * len(rows))
            yield from self._infer.ask_all(exchange, request, plan, None, arrived_s)


class PredictionsCodec(Codec):
    """Encodes answers as ``{"predictions": […]}``."""

    def encode(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> Parts:
        outputs = [answer.output for answer in answers]
        texts = [output for output in outputs if isinstance(output, bytes)]
        whole: Output | None = joined(outputs)
        if len(texts) == len(outputs) and sum(map(len, texts)) <= limits.WRITE_BYTES:
            whole = b"[%b]" % b",".join(texts)
        if whole is not None and not is_long(whole):
            body = b'{"predictions":%b}' % bytes(whole)
            return [responses.ok_head(len(body), close=closes), body]
        parts: list[Part] = [b'{"predictions":[']
        for index, answer in enumerate(answers):
            parts += (b",",) if index else ()
            if not is_long(answer.output):
                parts.append(bytes(answer.output))
            else:
                parts += yield from all_pieces(text_pieces(answer.output))
            yield
        parts.append(b"]}")
        return [responses.ok_head(sum(map(len, parts)), close=closes), *parts]


def read_invocation(reader: Reader, body: bytes | bytearray) -> Rows:
    """Return the rows of a body in one of MLflow's forms, in short steps. Raises as ``Reader.read``; TooLarge."""
    text = bytearray(body)
    if b"NaN" in text:
        text = yield from _without_nan(text)
    parts = yield from _parts(text, 0, len(text))
    given = [form for form in _FORMS if form in parts]
    if len(given) != 1:
        raise MalformedRequest(f"body has {' and '.join(given) or 'no inputs'}: {_EXPECTED}")
    parameters = _parameters(reader, parts.get("params"))
    rows = yield from _rows(reader, given[0], *parts[given[0]])
    return (yield from _with_parameters(reader, rows, parameters)) if parameters else rows


def _parts(text: bytearray, start: int, stop: int) -> Generator[None, None, dict[str, Slice]]:
    """Return the values of an object by key, in steps. Raises MalformedRequest."""
    if stop - start <= SHORT_TEXT_BYTES:
        try:
            values = {name: bytearray(value) for name, value in _decode_fields(text[start:stop]).items()}
            return {name: (value, 0, len(value)) for name, value in values.items()}
        except NOT_JSON:
            pass  # the message says what was expected
    fields = yield from find_fields(text, start, stop)
    return {name: (text, *extent) for name, extent in fields.items()}


def _parameters(reader: Reader, part: Slice | None) -> dict[int, Any]:
    """Return the values of the fields that ``params`` of a body gives for all rows, by their places."""
    if part is None or not isinstance(reader, RecordReader):
        return {}
    text, start, stop = part
    if stop - start > MAX_FIELD_BYTES:
        raise MalformedRequest(f"params takes {stop - start} bytes: expected at most {MAX_FIELD_BYTES}")
    try:
        given = msgspec.json.decode(text[start:stop], type=dict[str, Any] | None) or {}
    except NOT_JSON as error:
        raise MalformedRequest(f"params is no object: {error}") from error
    found = {}
    names = set(reader.record.names)
    for place, field in enumerate(reader.fields):
        # A parameter named like a column has a field of another name.
        own = field.field.name.removeprefix("params.")
        is_given = own in given and (field.field.name != own or f"params.{own}" not in names)
        if is_given and not field.field.is_required:
            found[place] = field.take(given[own])
    return found


def _with_parameters(reader: Reader, rows: list[bytes], parameters: dict[int, Any]) -> Rows:
    assert isinstance(reader, RecordReader)
    made: list[bytes] = []
    size_bytes = 0
    for row in rows:
        values = reader.rows.values(row)
        for place, value in parameters.items():
            values[place] = value
        made.append(reader.rows.row(values))
        check_rows_bytes(size_bytes := size_bytes + len(made[-1]))
        yield
    return made


def read_csv(input_type: ValueType, reader: Reader, body: bytes | bytearray) -> Rows:
    """Return the rows of CSV with names in its first line, in short steps. Raises as ``Reader.read``; TooLarge."""
    read = _Lines(body)
    lines = csv.reader(read, strict=True)
    known = frozenset(reader.record.names) if isinstance(reader, RecordReader) else None
    rows: list[bytes] = []
    size_bytes = 0
    try:
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise MalformedRequest("the first line has a name twice: expected the name of each column once")
        for texts in lines:
            read.row_bytes = 0
            if lines.line_num > _MAX_LINES:
                raise MalformedRequest(f"the body has over {_MAX_LINES} lines: expected at most as many")
            if texts:
                if len(texts) != len(names):
                    raise MalformedRequest(f"it has {len(texts)} values: expected {len(names)}, one for each name")
                by_name = {name: text for name, text in zip(names, texts) if known is None or name in known}
                value = input_of_texts(by_name, input_type)
                if isinstance(reader, RecordReader):
                    rows.append(reader.row_of(value))
                else:
                    rows.append(reader.read(msgspec.json.encode(value)))
                check_rows_bytes(size_bytes := size_bytes + len(rows[-1]))
                if len(rows) > MAX_CLIENT_BATCH:
                    raise MalformedRequest(f"the body has over {MAX_CLIENT_BATCH} rows: expected at most as many")
            yield
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"line {lines.line_num + 1} of the CSV: {error}") from error
    except (InvalidArgument, WrongInput) as error:
        raise WrongInput(f"line {lines.line_num} of the CSV: {error}") from error
    except (csv.Error, MalformedRequest) as error:
        raise MalformedRequest(f"line {lines.line_num} of the CSV: {error}") from error
    if not rows:
        raise MalformedRequest("the CSV has no rows: expected the names of the columns in its first line, then rows")
    return rows


class _Lines:
    """The lines of a body. A row is one, or several if a text in quotes has line feeds.

    ``row_bytes``: what was read of the present row. Raises MalformedRequest if that becomes too much for a step.
    """

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._at = len(_BOM) if body.startswith(_BOM) else 0
        self.row_bytes = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        body, at = self._body, self._at
        if at >= len(body):
            raise StopIteration
        self._at = body.find(b"\n", at, at + _MAX_LINE_BYTES) + 1 or min(len(body), at + _MAX_LINE_BYTES + 1)
        self.row_bytes += max(self._at - at, _LEAST_LINE_BYTES)
        if self.row_bytes > _MAX_LINE_BYTES:
            raise MalformedRequest(f"it has over {_MAX_LINE_BYTES} bytes: send such rows as JSON")
        return body[at : self._at].decode()


def _rows(reader: Reader, form: str, text: bytearray, start: int, stop: int) -> Rows:
    start, stop = strip(text, start, stop)
    if form == "dataframe_split":
        return (yield from _split(reader, text, start, stop))
    if form == "inputs" and text[start : start + 1] == b"{":
        if not isinstance(reader, RecordReader):
            raise WrongInput("inputs are named, and this application takes no records: expected a list")
        return (yield from reader.read_columns(text, start, stop, MAX_CLIENT_BATCH))
    return (yield from _rows_of_list(partial(read_input, reader), form, text, start, stop))


def _rows_of_list(
    read: Callable[[bytearray, int, int], Row], form: str, text: bytearray, start: int, stop: int
) -> Rows:
    """Return the rows of a list, each of whose items ``read`` reads."""
    extents = yield from find_items(text, start, stop, MAX_CLIENT_BATCH)
    if not extents:
        count = f"over {MAX_CLIENT_BATCH}" if extents is None else "no"
        raise MalformedRequest(f"{form} has {count} rows: expected 1 to {MAX_CLIENT_BATCH}")
    rows: list[bytes] = []
    size_bytes = 0
    for extent in extents:
        row = yield from read(text, *extent)
        check_rows_bytes(size_bytes := size_bytes + len(row))
        rows.append(row)
        yield
    return rows


def _split(reader: Reader, text: bytearray, start: int, stop: int) -> Rows:
    parts = yield from _parts(text, start, stop)
    if "columns" not in parts or "data" not in parts:
        raise MalformedRequest('dataframe_split has no columns or no data: expected {"columns": […], "data": [[…]]}')
    if not isinstance(reader, RecordReader):
        return (yield from _rows_of_list(partial(read_input, reader), "dataframe_split", *parts["data"]))
    text, first, last = parts["columns"]
    if last - first > SHORT_TEXT_BYTES * 8:
        raise MalformedRequest("dataframe_split has columns whose names are too long")
    order = reader.order_of(bytes(text[first:last]))
    text, first, last = parts["data"]
    if last - first <= SHORT_TEXT_BYTES:
        rows = yield from reader.read_short_lists(bytes(text[first:last]), order, MAX_CLIENT_BATCH)
        if rows is not None:
            return rows
    return (yield from _rows_of_list(partial(reader.read_list, order=order), "dataframe_split", text, first, last))


def _without_nan(text: bytearray) -> Generator[None, None, bytearray]:
    """Return the text with null in place of NaN outside of strings."""
    whole = bytearray()
    at, is_inside, is_escaped = 0, False, False
    while at < len(text):
        end = at + _PIECE_BYTES
        straddling = text.find(_NAN, end - 2, end + 2)
        end = end if straddling < 0 else straddling + len(_NAN)
        piece = text[at:end]
        places = [found.start() for found in re.finditer(_NAN, piece)]
        outside, is_inside, is_escaped = outside_strings(piece, places, is_inside, is_escaped)
        start = 0
        for place in outside:
            whole += piece[start:place] + b"null"
            start = place + len(_NAN)
        whole += piece[start:]
        at = end
        yield
    return whole
