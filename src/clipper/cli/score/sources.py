"""Reads the rows of files in chunks: CSV, JSON lines and Parquet. No file is in memory as a whole."""

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipper.base.malloc import keep_freed
from clipper.cli.score.inputs import InputMaker, Inputs
from clipper.cli.tables import kept_columns
from clipper.errors import InvalidArgument
from clipper.settings.sample_files import open_parquet
from clipper.values.records import RecordType

# A chunk becomes one block: large enough that its fixed costs are small, and below the server's bound of a body.
CHUNK_BYTES, CHUNK_ROWS = 4 * 1024 * 1024, 8192
# Parquet is read in units of this many chunks: a small read costs as much overhead per column as decoding its values.
_CHUNKS_READ = 8
# The longest row of text; a longer one means a file without line feeds, or a quote that never ends.
MAX_ROW_BYTES = 64 * 1024 * 1024


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        position: where the rows after these begin: a place in bytes, or in Parquet the number of a row.
        make_inputs: makes their inputs; by the thread that asks for them, so that chunks are parsed side by side.
        lines: the text of each row; in Parquet none.
    """

    position: int
    rows: int
    make_inputs: Callable[[], Inputs]
    lines: Sequence[bytes] = ()


def read_csv(path: Path, maker: InputMaker, position: int, row_bytes: int) -> Iterator[Chunk]:
    """Yield the rows of a CSV file from a position on, which is 0 for the first row."""
    header = csv_header(path)
    names = names_of(header)
    kept = kept_columns(names, maker.type, path)
    has_arrow = find_spec("pyarrow") is not None
    begin = max(position, len(header))
    for at, lines in _lines(path, begin, most_rows(row_bytes), has_quotes=True):
        yield Chunk(at, len(lines), partial(_of_csv, lines, names, kept, maker, has_arrow=has_arrow), lines)


def read_lines(path: Path, maker: InputMaker, position: int, row_bytes: int) -> Iterator[Chunk]:
    """Yield the rows of a file of JSON lines from a position on."""
    for at, lines in _lines(path, position, most_rows(row_bytes), has_quotes=False):
        yield Chunk(at, len(lines), partial(maker.of_lines, lines), lines)


def read_parquet(path: Path, maker: InputMaker, position: int, row_bytes: int) -> Iterator[Chunk]:
    """Yield the rows of a Parquet file from the row ``position`` on."""
    rows = most_rows(row_bytes)
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        kept = [names[index] for index in kept_columns(names, maker.type, path)]
        first = 0
        groups: list[int] = []
        for group in range(file.num_row_groups):  # those before the position are not read
            count = file.metadata.row_group(group).num_rows
            if first + count > position or groups:
                groups.append(group)
            else:
                first += count
        at = first
        read_rows = _CHUNKS_READ * rows
        # By this thread alone: other threads compute meanwhile, and splitting columns costs as much as decoding them.
        for read in file.iter_batches(read_rows, groups, kept, use_threads=False) if groups else ():
            inputs = read if read.schema.names == kept else read.select(kept)  # a name with a dot may bring others
            for start in range(min(max(position - at, 0), len(read)), len(read), rows):
                batch = inputs.slice(start, rows)
                yield Chunk(at + start + len(batch), len(batch), partial(_of_batch, batch, maker))
            at += len(read)


def reuse_memory() -> None:
    """Have all chunks use the memory of those before: see ``keep_freed``. pyarrow has a pool of its own, which gives
    most of it back to the system, unless it is told before it is loaded."""
    keep_freed()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def _of_batch(batch: Any, maker: InputMaker) -> Inputs:
    return maker.of_batch(batch) or maker.of_values(batch.to_pylist())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise InvalidArgument, which names the file, where it cannot be read or is not of its format."""
    try:
        yield
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors, too
        raise InvalidArgument(f"{path} cannot be read: it is not of the format that its name says: {error}") from error


READERS = {"csv": read_csv, "jsonl": read_lines, "parquet": read_parquet}


def most_rows(row_bytes: int) -> int:
    """Return how many rows a chunk may have whose inputs take so many bytes each."""
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(row_bytes, 1)))


def csv_header(path: Path) -> bytes:
    """Return the first line of a CSV file. Raises InvalidArgument if there is none, or it is no UTF-8."""
    with reading(path), path.open("rb") as file:
        header = file.readline(MAX_ROW_BYTES)
        names_of(header)
    if not header.strip():
        raise InvalidArgument(f"{path} has no first line with the names of its columns")
    return header


def names_of(header: bytes) -> list[str]:
    return cells_of(header.decode("utf-8-sig"))


def cells_of(line: str) -> list[str]:
    """Return the cells of a line of CSV, however long they are."""
    csv.field_size_limit(MAX_ROW_BYTES)
    return next(csv.reader(io.StringIO(line, newline="")), [])


def parquet_schema(path: Path) -> Any:
    """Return the schema of a Parquet file. Raises InvalidArgument without the library."""
    with reading(path), open_parquet(path) as file:
        return file.schema_arrow


def count_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _lines(path: Path, position: int, most: int, *, has_quotes: bool) -> Iterator[tuple[int, list[bytes]]]:
    """Yield ``most`` lines at a time, none blank, and where the next begin. A quoted text may have line feeds."""
    with path.open("rb") as file:
        file.seek(position)
        rest = b""
        while True:
            read = file.read(2 * CHUNK_BYTES)
            text = rest + read
            if not text:
                return
            ends = _ends(text, has_quotes)
            if not read and (not len(ends) or ends[-1] < len(text)):
                ends = np.append(ends, len(text))  # the last line has no line feed
            if not len(ends):
                if len(text) > MAX_ROW_BYTES:
                    raise InvalidArgument(f"{path} has a row of over {MAX_ROW_BYTES} bytes at {position}")
                rest = text
                continue
            begin = 0
            for start in range(0, len(ends), most):
                cut = ends[start : start + most].tolist()
                yield position + cut[-1], _rows(text, [begin, *cut])
                begin = cut[-1]
            rest = text[int(ends[-1]) :]
            position += int(ends[-1])


def _rows(text: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the lines between places, without their ends and without blank lines."""
    block = text[places[0] : places[-1]]
    if b"\r" in block or block.count(b"\n") != len(places) - 1 or not block.endswith(b"\n"):
        lines = [text[begin:end].rstrip(b"\r\n") for begin, end in pairwise(places)]
    else:
        lines = block[:-1].split(b"\n")
    return lines if all(map(bytes.strip, lines)) else [line for line in lines if line.strip()]


def _ends(text: bytes, has_quotes: bool) -> "np.ndarray[Any, Any]":
    """Return the places behind the line feeds that end rows."""
    data = np.frombuffer(text, np.uint8)
    feeds = data == 10
    if has_quotes and b'"' in text:
        feeds &= np.cumsum(data == 34) & 1 == 0
    return np.flatnonzero(feeds) + 1


def _of_csv(
    lines: Sequence[bytes], names: Sequence[str], kept: Sequence[int], maker: InputMaker, *, has_arrow: bool
) -> Inputs:
    inputs = _of_csv_columns(lines, names, kept, maker) if has_arrow else None
    return inputs or _of_csv_rows(lines, names, kept, maker)


def _of_csv_columns(
    lines: Sequence[bytes], names: Sequence[str], kept: Sequence[int], maker: InputMaker
) -> Inputs | None:
    """Return the inputs of lines by pyarrow's reader; None if a line has to be read by itself."""
    import pyarrow as pa
    import pyarrow.csv as pc

    record = maker.type if isinstance(maker.type, RecordType) else None
    chosen = [names[index] for index in kept]
    types = {}
    for name in chosen:
        of_type = maker.type if record is None else record.fields[record.names.index(name)].type
        if isinstance(of_type, RecordType) or (of_type.shape and record is not None):
            return None
        label = of_type.dtype.label
        types[name] = pa.string() if label in ("string", "bytes") else pa.bool_() if label == "bool" else label
    try:
        table = pc.read_csv(
            pa.py_buffer(b"\n".join(lines)),
            read_options=pc.ReadOptions(
                use_threads=False, column_names=list(names), block_size=2 * CHUNK_BYTES + len(lines)
            ),
            parse_options=pc.ParseOptions(newlines_in_values=True),
            convert_options=pc.ConvertOptions(
                column_types=types, include_columns=chosen, null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(lines):
        return None
    (batch,) = table.combine_chunks().to_batches()
    return maker.of_batch(batch)


def _of_csv_rows(lines: Sequence[bytes], names: Sequence[str], kept: Sequence[int], maker: InputMaker) -> Inputs:
    rows, wrong = [], {}
    for number, line in enumerate(lines):
        cells = cells_of(line.decode("utf-8", "replace"))
        if len(cells) != len(names):
            wrong[number] = f"malformed_request: the row has {len(cells)} values: expected {len(names)}"
            cells = [""] * len(names)
        rows.append({names[index]: cells[index] for index in kept})
    made = maker.of_texts([row for number, row in enumerate(rows) if number not in wrong])
    if not wrong:
        return made
    places = [number for number in range(len(rows)) if number not in wrong]
    return Inputs(made.frame, wrong | {places[number]: text for number, text in made.errors.items()})
