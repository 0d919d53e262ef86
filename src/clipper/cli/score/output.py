"""The rows of the input with what was predicted for them: as CSV, JSON lines or Parquet."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from clipper.cli.score.answers import Answers, is_json
from clipper.cli.score.journal import reported
from clipper.cli.score.sources import Chunk, cells_of, csv_header, names_of, parquet_schema
from clipper.errors import InvalidArgument
from clipper.learning.decisions.export import arrow_type
from clipper.settings.sample_files import open_parquet
from clipper.values.records import RecordType, ValueType

# What is added to each row: the outputs' columns, and these.
ABOUT = ("model", "version", "error")
_LENGTH_BYTES = 8


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
        self._table: _Table | None = None
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
        """Return what the file begins with."""
        if self.form != "csv":
            return b""
        return self._header + b"," + ",".join(map(_quoted, self.added)).encode() + b"\n"

    def encode(self, chunk: Chunk, answers: Answers) -> bytes:
        """Return the rows of a chunk with their answers."""
        if self.form == "csv":
            return self._csv(chunk, answers)
        if self.form == "jsonl":
            return self._json(chunk, answers)
        return self._batch(chunk, answers)

    def _csv(self, chunk: Chunk, answers: Answers) -> bytes:
        about = ["", _quoted(answers.model), _quoted(answers.version)]
        good = ",".join([*about, ""]).encode() + b"\n"
        parts: list[bytes] = []
        errors = answers.errors
        for row, (line, text) in enumerate(zip(chunk.lines, answers.texts)):
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
        """Add whole rows to the output, and return their added columns."""
        import pyarrow as pa

        rows, types = chunk.rows, [field.type for field in self.schema()][-len(self.added) :]
        outputs = types[: -len(ABOUT)]
        whole = self._values(answers.texts)
        made = []
        for name, arrow in zip(self._names or [""], outputs):
            values = [None if value is None else value.get(name) for value in whole] if name else whole
            try:
                made.append(pa.array(values, arrow))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
                fitting = [self._fitting(value, arrow, row, answers) for row, value in enumerate(values)]
                made.append(pa.array(fitting, arrow))
        text = pa.string()
        about = [pa.repeat(pa.scalar(told or None, text), rows) for told in (answers.model, answers.version)]
        errors = answers.errors
        about.append(pa.array([errors.get(row) for row in range(rows)], text) if errors else pa.nulls(rows, text))
        arrays = [*made, *about]
        assert self._table is not None
        self._table.add([*chunk.batch.columns, *arrays])
        data: bytes = pa.RecordBatch.from_arrays(arrays, self.added).serialize().to_pybytes()
        return len(data).to_bytes(_LENGTH_BYTES, "little") + data

    def _values(self, texts: Sequence[bytes | None]) -> list[Any]:
        if self.output_type is None:
            return [None if text is None else text.decode() for text in texts]
        found: list[Any] = msgspec.json.decode(b"[" + b",".join([text or b"null" for text in texts]) + b"]")
        # Objects of a version that has been of another kind since, and others where there should be objects.
        return [value if isinstance(value, dict) else None for value in found] if self._names else found

    def _fitting(self, value: Any, arrow: Any, row: int, answers: Answers) -> Any:
        import pyarrow as pa

        try:
            pa.array([value], arrow)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            answers.errors[row] = f"model_error: the output {str(value)[:100]} is no {arrow}"
            return None
        return value

    def schema(self) -> Any:
        """Return the schema of the file in Parquet."""
        import pyarrow as pa

        assert self._schema is not None
        if isinstance(self.output_type, RecordType):
            types = [arrow_type(field.type, of_bytes="string") for field in self.output_type.fields]
        else:
            known = self.output_type
            types = [pa.string() if known is None else arrow_type(known, of_bytes="string")]
        fields = [*self._schema, *map(pa.field, self.added, [*types, pa.string(), pa.string(), pa.string()])]
        return pa.schema(fields, self._schema.metadata)

    def begin(self, sources: Sequence[Path], partial: Path, rows: int, target: Path) -> None:
        """Begin the whole output in Parquet, a file that cannot be gone on with after a kill: ``partial`` has the added
        columns of the first rows, which are written again."""
        import pyarrow as pa

        schema = self.schema()
        self._table = _Table(target, schema)
        with partial.open("rb") as file:
            added = _Added(file, pa.schema(list(schema)[-len(self.added) :]))
            for source in sources:
                with open_parquet(source) as whole:
                    for read in whole.iter_batches(_rows_in_group(whole.metadata)) if rows else ():
                        batch = read.slice(0, rows)
                        rows -= len(batch)
                        self._table.add([*batch.columns, *added.take(len(batch)).columns])
                        if not rows:
                            return

    def close(self) -> None:
        """End the output that was begun."""
        if self._table is not None:
            self._table.close()


class _Table:
    """A file of Parquet, which is written a row group at a time, by a thread: rows are asked for meanwhile.

    At most two groups are in memory: one that is written, and the next one.
    """

    def __init__(self, target: Path, schema: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # A dictionary of numbers that all differ takes most of the time, and no less space.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._target, self._schema = target, schema
        with reported(target, "written"):
            self._writer = pq.ParquetWriter(target, schema, use_dictionary=texts)
        self._tables: list[Any] = []
        self._rows = self._size_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def add(self, columns: Sequence[Any]) -> None:
        import pyarrow as pa

        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._tables.append(table)
        self._rows += len(table)
        self._size_bytes += table.nbytes
        if self._rows >= _MOST_ROWS_IN_GROUP or self._size_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._wait()
        if self._tables:
            self._writing = self._thread.submit(self._writer.write_table, pa.concat_tables(self._tables))
            self._tables, self._rows, self._size_bytes = [], 0, 0

    def _wait(self) -> None:
        """Wait for the group that is being written. Raises InvalidArgument if it cannot be."""
        if self._writing is not None:
            with reported(self._target, "written"):
                self._writing.result()

    def close(self) -> None:
        self._flush()
        self._wait()
        self._thread.shutdown()
        with reported(self._target, "written"):
            self._writer.close()


class _Added:
    """The added columns of a partial output, in the order of its rows."""

    def __init__(self, file: BinaryIO, schema: Any) -> None:
        self._file, self._schema = file, schema
        self._read: list[Any] = []

    def take(self, rows: int) -> Any:
        """Return the next rows, as a table of pyarrow."""
        import pyarrow as pa

        while sum(map(len, self._read)) < rows:
            size = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
            self._read.append(pa.ipc.read_record_batch(self._file.read(size), self._schema))
        table = pa.Table.from_batches(self._read, self._schema)
        self._read = table.slice(rows).to_batches()
        return table.slice(0, rows)


# A row group of Parquet is in memory as a whole, also where the file is read.
_MOST_ROWS_IN_GROUP, _GROUP_BYTES = 128 * 1024, 64 * 1024 * 1024


def _rows_in_group(metadata: Any) -> int:
    size_bytes: int = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    return max(1, min(_MOST_ROWS_IN_GROUP, _GROUP_BYTES * int(metadata.num_rows) // max(size_bytes, 1)))


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
