"""The rows of the input with what was predicted for them: as CSV, JSON lines or Parquet."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clipper.cli.score.answers import Answers, Numbers, is_json
from clipper.cli.score.parquet_output import added_bytes, make_parquet
from clipper.cli.score.sources import Chunk, cells_of, csv_header, names_of, parquet_schema
from clipper.errors import InvalidArgument
from clipper.learning.decisions.export import arrow_type
from clipper.values.records import RecordType, ValueType

# Each row gets the outputs' columns, and these.
ABOUT = ("model", "version", "error")


class Layout:
    """The form of an output file: which columns follow those of the input.

    Args:
        form: ``csv``, ``jsonl`` or ``parquet``.
        output_type: the type of the outputs; None if it is not known, which gives a column of JSON.
        prefix: what the names of the added columns begin with.
    """

    def __init__(self, form: str, source: Path, output_type: ValueType | None, prefix: str) -> None:
        self.form, self.output_type, self._prefix = form, output_type, prefix
        self._names = output_type.names if isinstance(output_type, RecordType) else ()
        outputs = [f"{prefix}output_{name}" for name in self._names] or [f"{prefix}output"]
        self.added = [*outputs, *(f"{prefix}{name}" for name in ABOUT)]
        self._header = csv_header(source).rstrip(b"\r\n") if form == "csv" else b""
        self._schema = parquet_schema(source) if form == "parquet" else None
        present: Sequence[str] = ()
        if form == "csv":
            present = names_of(self._header)
        elif self._schema is not None:
            present = self._schema.names
        self._width = len(present)
        taken = [name for name in self.added if name in present]
        if taken:
            raise InvalidArgument(
                f"{source} has a column {taken[0]!r} already: give --prefix, which names of added columns begin with"
            )

    def header(self) -> bytes:
        if self.form != "csv":
            return b""
        return self._header + b"," + ",".join(map(_quoted, self.added)).encode() + b"\n"

    def encode(self, chunk: Chunk, answers: Answers) -> bytes:
        if self.form == "csv":
            return self._csv(chunk, answers)
        if self.form == "jsonl":
            return self._json(chunk, answers)
        return self._batch(chunk, answers)

    def _csv(self, chunk: Chunk, answers: Answers) -> bytes:
        about = ["", _quoted(answers.model), _quoted(answers.version)]
        good = ",".join([*about, ""]).encode() + b"\n"
        errors, texts = answers.errors, answers.texts
        if chunk.lines and not errors:  # most chunks: with less than a microsecond a row
            found = [text for text in texts if text is not None]
            is_plain = isinstance(texts, Numbers) and b"null" not in found
            cells = found if is_plain else [self._cells(text) for text in found]
            return good.join(map(b",".join, zip(chunk.lines, cells))) + good
        parts: list[bytes] = []
        for row, (line, text) in enumerate(zip(chunk.lines, texts)):
            if row not in errors and text is not None:
                parts += (line, b",", self._cells(text), good)
            else:
                error = _quoted(" ".join(errors[row].split()))
                parts += (self._whole(line), b"," * max(len(self._names), 1), ",".join([*about, error]).encode(), b"\n")
        return b"".join(parts)

    def _whole(self, line: bytes) -> bytes:
        """Return a line that has as many cells as the first line, so that the added ones stand in their columns."""
        cells = cells_of(line.decode("utf-8", "replace"))
        if len(cells) == self._width:
            return line
        last = ",".join(cells[self._width - 1 :])
        padded = [*cells[: self._width - 1], *[""] * (self._width - 1 - len(cells)), last]
        return ",".join(map(_quoted, padded)).encode()

    def _cells(self, text: bytes) -> bytes:
        if self._names:
            values = _parts(text)
            return b",".join([_cell(bytes(values.get(name, b""))) for name in self._names])
        return _cell(text)

    def _json(self, chunk: Chunk, answers: Answers) -> bytes:
        names = [msgspec.json.encode(f"{self._prefix}{name}") for name in ("output", *ABOUT)]
        model, version = msgspec.json.encode(answers.model), msgspec.json.encode(answers.version)
        about = b",%b:%b,%b:%b" % (names[1], model, names[2], version)
        parts: list[bytes] = []
        for row, (whole_line, text) in enumerate(zip(chunk.lines, answers.texts)):
            line = whole_line.strip()
            if any(name in line for name in names) and (taken := _parts(line).keys() & set(self.added)):
                first = next(name for name in self.added if name in taken)
                raise InvalidArgument(
                    f"a line has the key {first!r} already: give --prefix, which names of added keys begin with"
                )
            begin = line[:-1].rstrip() if line[:1] == b"{" and line[-1:] == b"}" and is_json(line) else None
            if begin is None:
                whole = line if is_json(line) else msgspec.json.encode(line.decode("utf-8", "replace"))
                begin = b'{"input":' + whole
            error = answers.errors.get(row)
            told = b"null" if error is None else msgspec.json.encode(error)
            comma = b"" if begin == b"{" else b","
            parts += (begin, comma, names[0], b":", text or b"null", about, b",", names[3], b":", told, b"}\n")
        return b"".join(parts)

    def _batch(self, chunk: Chunk, answers: Answers) -> bytes:
        """Return the added columns of rows, by which ``make`` makes whole rows."""
        import pyarrow as pa

        rows, outputs = chunk.rows, self._output_types
        made = self._numbers(answers.texts, outputs[0]) or self._outputs(answers, outputs)
        errors = answers.errors
        about = [_repeated(told, rows) for told in (answers.model, answers.version)]
        text = pa.string()
        about.append(pa.array([errors.get(row) for row in range(rows)], text) if errors else pa.nulls(rows, text))
        arrays = [*made, *about]
        return added_bytes(pa.RecordBatch.from_arrays(arrays, self.added))

    def _numbers(self, texts: Sequence[bytes | None], arrow: Any) -> Sequence[Any]:
        """Return the column of outputs that are numbers alone, without a step for each; empty if they are not."""
        import pyarrow as pa

        if not isinstance(texts, Numbers) or self.output_type is None or self._names:
            return ()
        numbers, is_truth = texts.array, pa.types.is_boolean(arrow)
        if is_truth != (numbers.dtype.kind == "b") or not (is_truth or pa.types.is_primitive(arrow)):
            return ()
        values = np.packbits(numbers, bitorder="little") if is_truth else np.ascontiguousarray(numbers)
        bits = None
        if numbers.dtype.kind == "f" and not (there := np.isfinite(numbers)).all():  # JSON has no others
            bits = pa.py_buffer(np.packbits(there, bitorder="little"))
        of = pa.bool_() if is_truth else pa.type_for_alias(numbers.dtype.name)
        try:
            return [pa.Array.from_buffers(of, len(numbers), [bits, pa.py_buffer(values)]).cast(arrow)]
        except pa.ArrowInvalid:
            return ()

    def _outputs(self, answers: Answers, types: Sequence[Any]) -> Sequence[Any]:
        import pyarrow as pa

        whole = self._values(answers.texts)
        made = []
        for name, arrow in zip(self._names or [""], types):
            values = [None if value is None else value.get(name) for value in whole] if name else whole
            try:
                made.append(_array(values, arrow))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                fitting = [self._fitting(value, arrow, row, answers) for row, value in enumerate(values)]
                made.append(pa.array(fitting, arrow))
        return made

    def _values(self, texts: Sequence[bytes | None]) -> list[Any]:
        if self.output_type is None:
            return [None if text is None else text.decode() for text in texts]
        found: list[Any] = msgspec.json.decode(b"[" + b",".join([text or b"null" for text in texts]) + b"]")
        # Objects of a version that has been of another kind since, and others where there should be objects.
        return [value if isinstance(value, dict) else None for value in found] if self._names else found

    def _fitting(self, value: Any, arrow: Any, row: int, answers: Answers) -> Any:
        import pyarrow as pa

        try:
            _array([value], arrow)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            answers.errors[row] = f"model_error: the output {str(value)[:100]} is no {arrow}"
            return None
        return value

    @cached_property
    def _output_types(self) -> Sequence[Any]:
        import pyarrow as pa

        known = self.output_type
        if isinstance(known, RecordType):
            return [arrow_type(field.type, of_bytes="string") for field in known.fields]
        return [pa.string() if known is None else arrow_type(known, of_bytes="string")]

    def make(self, sources: Sequence[Path], partial: Path, target: Path) -> None:
        """Make the whole output in Parquet of the sources and the added columns, which ``partial`` has."""
        import pyarrow as pa

        assert self._schema is not None
        types = [*self._output_types, *[pa.string()] * len(ABOUT)]
        schema = pa.schema([*self._schema, *map(pa.field, self.added, types)], self._schema.metadata)
        make_parquet(sources, partial, target, schema, len(self.added))


def _repeated(text: str, rows: int) -> Any:
    """Return a column of one text, or of nothing if it is empty. ``pa.array`` imports pandas, if it is there, which
    takes as long as a million rows."""
    import pyarrow as pa

    if not text:
        return pa.nulls(rows, pa.string())
    data = text.encode()
    places = np.arange(rows + 1, dtype=np.int32) * len(data)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(places), pa.py_buffer(data * rows))


def _array(values: Sequence[Any], arrow: Any) -> Any:
    """Return values as a column. Raises OverflowError if some would be cut off, which pyarrow does in silence."""
    import pyarrow as pa

    if pa.types.is_integer(arrow) and any(type(value) is float and not value.is_integer() for value in values):
        raise OverflowError
    return pa.array(values, arrow)


def _parts(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_object(text)
    except msgspec.DecodeError:
        return {}


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _cell(text: bytes) -> bytes:
    """Return JSON as a cell of CSV: a text without its quotes, nothing for null."""
    if text[:1] == b'"':
        return _quoted(msgspec.json.decode(text, type=str)).encode()
    if text == b"null":
        return b""
    return text if text[:1] not in (b"[", b"{") else _quoted(text.decode()).encode()


def _quoted(text: str) -> str:
    """Return a cell of CSV. Python's writer would not quote a text for its line feeds alone."""
    return '"' + text.replace('"', '""') + '"' if any(each in text for each in ',"\r\n') else text
