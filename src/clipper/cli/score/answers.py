"""Reads the answer to a block of rows, which frames of the container protocol make up."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, overload

import msgspec
import numpy as np

from clipper.errors import ModelFailed, ProtocolViolation
from clipper.model.protocol.columns import decode_column_results
from clipper.model.protocol.frames import PROTOCOL_VERSION, Kind, Splitter
from clipper.model.protocol.messages import Buffer, decode_error, decode_results, decode_welcome
from clipper.model.protocol.typed import decode_typed_results
from clipper.values.decoding import NOT_JSON
from clipper.values.output_arrays import TypedResults
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import Output, read_outputs
from clipper.values.outputs.record_columns import RecordColumns

_decode_list = msgspec.json.Decoder(list).decode
_NUMPY = {"int32": "<i4", "int64": "<i8", "float64": "<f8", "uint8": "u1", "bool": "?"}


@dataclass(slots=True)
class Answers:
    """The answers to some rows.

    Attributes:
        texts: the output of each row as JSON; None for a row with an error. Numbers alone are ``Numbers``.
        errors: row to error.
        model, version: those that answered; empty if no row could be asked.
    """

    texts: Sequence[bytes | None]
    errors: dict[int, str] = field(default_factory=dict)
    model: str = ""
    version: str = ""


def read_answers(body: Buffer, rows: int) -> Answers:
    """Return the answers to a block of so many rows. Raises ProtocolViolation if they are not."""
    answers = Answers(())
    declared: Conversion | None = None
    pieces: list[tuple[int, Sequence[bytes | None]]] = []
    for kind, first, content in Splitter(max(len(body), 1)).feed(body):  # type: ignore[arg-type]
        if kind == Kind.WELCOME:
            welcome = decode_welcome(content, PROTOCOL_VERSION)
            answers.model, answers.version = welcome.model, welcome.version
            output_type = welcome.output_type if welcome.output_is_declared else None
            declared = None if output_type is None else Conversion(output_type)
            continue
        if kind == Kind.ERROR:
            found: Sequence[bytes | None] = [None]
            failures: Mapping[int, str] = {0: decode_error(content)}
        else:
            found, failures = _read(kind, content, declared)
        pieces.append((first, found))
        answers.errors.update({first + row: _error(text) for row, text in failures.items()})
    pieces.sort(key=itemgetter(0))
    seen = 0
    for first, found in pieces:
        if first != seen:
            raise ProtocolViolation(f"an answer goes on with row {first}: expected row {seen}")
        seen += len(found)
    if seen != rows:
        raise ProtocolViolation(f"an answer has {seen} rows: expected {rows}")
    answers.texts = _joined([found for _, found in pieces])
    if not isinstance(answers.texts, Numbers) and any(
        text is None and row not in answers.errors for row, text in enumerate(answers.texts)
    ):
        raise ProtocolViolation("an answer has a row with neither an output nor an error")
    return answers


class Numbers(Sequence[bytes | None]):
    """The texts of numbers, which are made if somebody reads them. ``array``: the numbers."""

    def __init__(self, array: "np.ndarray[Any, Any]") -> None:
        self.array = array
        self._texts: list[bytes] | None = None

    def _made(self) -> list[bytes]:
        if self._texts is None:
            joined = msgspec.json.encode(self.array.tolist())[1:-1]
            self._texts = joined.split(b",") if joined else []
        return self._texts

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._made())

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        return self._made()[place]


def _joined(pieces: Sequence[Sequence[bytes | None]]) -> Sequence[bytes | None]:
    arrays = [piece.array for piece in pieces if isinstance(piece, Numbers)]
    if arrays and len(arrays) == len(pieces) and len({array.dtype for array in arrays}) == 1:
        return Numbers(np.concatenate(arrays))
    return [text for piece in pieces for text in piece]


def _read(kind: int, content: Buffer, declared: Conversion | None) -> tuple[Sequence[bytes | None], Mapping[int, str]]:
    outputs: Sequence[Output | None]
    if kind == Kind.TYPED_RESULTS:
        typed = decode_typed_results(content)
        if declared is None or declared.keeps(typed.form):
            if (numbers := _numbers(typed)) is not None:
                return numbers, {}
            declared = None
        outputs, failures = read_outputs(typed)
    elif kind == Kind.COLUMN_RESULTS:
        columns = decode_column_results(content)
        outputs, failures = RecordColumns(columns.columns).outputs(columns.failures)
        if declared is not None and declared.keeps_columns(columns.columns):
            declared = None
    elif kind == Kind.RESULTS:
        results = decode_results(content)
        texts = list(map(bytes, results.outputs))
        wrong: dict[int, str] = {}
        if not results.failures and _are_json(texts):
            if declared is None:
                return texts, {}
        else:
            wrong = {
                row: "the model's output is not JSON"
                for row, text in enumerate(texts)
                if row not in results.failures and (b"\n" in text or not is_json(text))
            }
        outputs, failures = texts, wrong | dict(results.failures)
    else:
        raise ProtocolViolation(f"an answer has a frame of kind {kind}")
    found = dict(failures)
    texts_of: list[bytes | None] = []
    for row, output in enumerate(outputs):
        text = None
        if row not in found and output is not None:
            try:
                text = bytes(output if declared is None else declared.convert(output))
            except ModelFailed as error:
                found[row] = str(error)
        texts_of.append(text)
    return texts_of, found


def _numbers(typed: TypedResults) -> Numbers | None:
    """Return numbers as they are in memory; None if these outputs are none."""
    code = _NUMPY.get(typed.form.dtype.label)
    if code is None or typed.form.shape or typed.failures or typed.form.nan_as_text:
        return None
    return Numbers(np.frombuffer(typed.data, code))


def is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except NOT_JSON:
        return False
    return True


def _are_json(texts: Sequence[bytes]) -> bool:
    """Whether each text is JSON, if none has a comma; False where that needs a closer look.

    All are read in a step: no value without a comma can begin in one text and end in another.
    """
    whole = b",".join(texts)
    try:
        values = _decode_list(b"[%b]" % whole)
    except NOT_JSON:
        return False
    return len(values) == len(texts) and b"\n" not in whole and whole.count(b",") < len(texts)


def _error(message: str) -> str:
    has_code = message.startswith(("output_too_large: ", "batch_too_large: "))
    return message if has_code else f"{ModelFailed.code}: {message}"
