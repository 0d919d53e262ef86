"""The whole output in Parquet: the bytes of the inputs as they are, the added columns, and a footer about both.

To read the rows and write them again would take longer than to score them with a small model.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from clipper.cli.output import reported
from clipper.cli.score.parquet_footer import MAGIC, TAIL_BYTES, Part, joined_footer
from clipper.cli.score.sources import reading
from clipper.errors import InvalidArgument
from clipper.settings.sample_files import open_parquet

_LENGTH_BYTES = 8
_COPIED_BYTES = 1024 * 1024
# When rows are rewritten, a whole row group is in memory.
_MOST_ROWS_IN_GROUP, _GROUP_BYTES = 128 * 1024, 64 * 1024 * 1024


def added_bytes(batch: Any) -> bytes:
    """Return the added columns of a chunk as the partial output has them."""
    data: bytes = batch.serialize().to_pybytes()
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def check_alike(sources: Sequence[Path]) -> None:
    """Raise InvalidArgument unless all inputs have the names of the first one's columns, in its order."""
    names: Sequence[str] | None = None
    for source in sources:
        with reading(source), open_parquet(source) as file:
            found = file.schema_arrow.names
        names = names or found
        if found != names:
            raise InvalidArgument(
                f"{source} has the columns {', '.join(found)[:300]}: expected those of {sources[0]}, in their order: "
                f"{', '.join(names)[:300]}"
            )


def make_parquet(sources: Sequence[Path], partial: Path, target: Path, schema: Any, added: int) -> None:
    """Write the output.

    Args:
        partial: the added columns, as ``added_bytes`` made them.
        schema: that of the output, whose last ``added`` columns are the added ones.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = list(schema)
    of_rows, of_added = pa.schema(fields[:-added], schema.metadata), pa.schema(fields[-added:])
    # Bytes can stay as they are only if all files store all columns alike, including those that pyarrow reads alike.
    is_copied = _have_one_form(sources)
    with reported(target, "written"), target.open("w+b") as file:
        parts = []
        for source in sources:
            parts.append(_copied(source, file) if is_copied else _appended(file, of_rows, _rows(source, of_rows)))
        counts = [count for part in parts for count in _group_rows(part)]
        appended = _appended(file, of_added, _added(partial, of_added, counts))
        whole = pa.BufferOutputStream()
        pq.write_metadata(schema, whole)
        file.write(joined_footer(parts, appended, whole.getvalue().to_pybytes()[4:-TAIL_BYTES]))
        file.flush()
        os.fsync(file.fileno())


def _have_one_form(sources: Sequence[Path]) -> bool:
    first = None
    for source in sources:
        with reading(source), open_parquet(source) as file:
            first = first or file.schema
            if not file.schema.equals(first):
                return False
    return True


def _copied(source: Path, file: BinaryIO) -> Part:
    """Append a file without its footer."""
    start = file.tell()
    with source.open("rb") as read:
        footer, size = _footer(read)
        read.seek(0)
        for left in range(size, 0, -_COPIED_BYTES):
            file.write(read.read(min(left, _COPIED_BYTES)))
    return Part(footer, start)


def _appended(file: BinaryIO, schema: Any, tables: Iterable[Any]) -> Part:
    """Append tables, each as a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = file.tell()
    # A dictionary of numbers that all differ takes most of the time, and no less space.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(file, schema, use_dictionary=texts) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))
    file.flush()
    footer, size = _footer(file)
    file.truncate(size)
    file.seek(size)
    return Part(footer, start)


def _footer(file: BinaryIO) -> tuple[bytes, int]:
    """Return the footer of a Parquet file, and where it begins."""
    end = file.seek(-TAIL_BYTES, os.SEEK_END)
    begin = end - int.from_bytes(file.read(4), "little")
    file.seek(begin)
    return file.read(end - begin), begin


def _rows(source: Path, schema: Any) -> Iterator[Any]:
    """Yield a file's rows in the types of the first file."""
    import pyarrow as pa

    with reading(source), open_parquet(source) as file:
        metadata = file.metadata
        size_bytes = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        most = _GROUP_BYTES * int(metadata.num_rows) // max(size_bytes, 1)
        for batch in file.iter_batches(max(1, min(_MOST_ROWS_IN_GROUP, most))):
            yield pa.Table.from_arrays(batch.columns, schema=schema)


def _added(partial: Path, schema: Any, counts: Sequence[int]) -> Iterator[Any]:
    """Yield the added columns, in tables of so many rows each. They stay in the file until they are used."""
    import pyarrow as pa

    if not counts:  # an empty file cannot be mapped
        return
    file = pa.memory_map(str(partial))
    held: list[Any] = []
    for count in counts:
        rows = sum(map(len, held))
        while rows < count:
            size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            held.append(pa.ipc.read_record_batch(file.read_buffer(size), schema))
            rows += len(held[-1])
        table = pa.Table.from_batches(held, schema)
        yield table.slice(0, count)
        held = table.slice(count).to_batches()


def _group_rows(part: Part) -> list[int]:
    """Return the rows of each group that has any."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = len(part.footer).to_bytes(4, "little") + MAGIC
    metadata = pq.read_metadata(pa.BufferReader(MAGIC + part.footer + tail))
    counts = [int(metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)]
    return [count for count in counts if count]
