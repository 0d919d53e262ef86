"""Writes joined decisions to a file: JSON lines, or Parquet with the extra ``clipper-serving[log]``."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from clipper.decisions.rows import Row, as_json
from clipper.errors import InvalidArgument, Unavailable

# Rows in memory at once: a row group of Parquet, of some MB.
ROWS_PER_GROUP = 20_000


def export(rows: Iterable[Row], output: Path) -> int:
    """Write all rows to ``output``, or no file at all if that fails; return the number of rows.

    Raises:
        InvalidArgument: the name ends neither in .parquet nor in .jsonl, or the extra for Parquet is not installed.
        Unavailable: the file cannot be written.
    """
    writers: dict[str, Callable[[Iterable[Row], Path], int]] = {".jsonl": _write_lines, ".parquet": _write_parquet}
    write = writers.get(output.suffix)
    if write is None:
        raise InvalidArgument(f"{output} has an unknown format: expected a name that ends in .parquet or .jsonl")
    making = output.with_name(f".{output.name}.making")
    try:
        count = write(rows, making)
        making.replace(output)
    except OSError as error:
        raise Unavailable(f"{output} cannot be written: {error}") from error
    finally:
        with suppress(OSError):  # where it could not be made it cannot be removed
            making.unlink(missing_ok=True)
    return count


def _write_lines(rows: Iterable[Row], path: Path) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(as_json(row))
            count += 1
    return count


def _write_parquet(rows: Iterable[Row], path: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidArgument(
            "Parquet needs the extra clipper-serving[log]: install it, or export to a name that ends in .jsonl"
        ) from error
    texts, numbers = pa.list_(pa.string()), pa.map_(pa.string(), pa.float64())
    time = pa.timestamp("us", tz="UTC")
    schema = pa.schema(
        [
            pa.field("query_id", pa.int64()),
            pa.field("time", time),
            pa.field("application", pa.dictionary(pa.int32(), pa.string())),
            pa.field("policy", pa.dictionary(pa.int32(), pa.string())),
            pa.field("candidates", texts),
            pa.field("candidate_versions", texts),
            pa.field("context", pa.string()),
            pa.field("pinned", pa.string()),
            pa.field("models", texts),
            pa.field("shares", pa.list_(pa.float64())),
            pa.field("beliefs", pa.list_(pa.list_(pa.float64()))),
            pa.field("outputs", texts),
            pa.field("output", pa.string()),
            pa.field("is_cut", pa.bool_()),
            pa.field("default", pa.bool_()),
            pa.field("reason", pa.string()),
            pa.field("confidence", pa.float64()),
            pa.field("raw_confidence", pa.float64()),
            pa.field("latency_ms", pa.float64()),
            pa.field("feedback_count", pa.int32()),
            pa.field("feedback_time", time),
            pa.field("label", pa.string()),
            pa.field("reward", pa.float64()),
            pa.field("losses", numbers),
            pa.field("loss", pa.float64()),
            pa.field("learned", pa.bool_()),
            pa.field("steps", pa.list_(pa.list_(pa.float64()))),
            pa.field("features", pa.list_(pa.float64())),
        ]
    )
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            columns = {field.name: [_column(row, field.name) for row in group] for field in schema}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while group := list(islice(left, ROWS_PER_GROUP)):
        yield group


def _column(row: Row, name: str) -> Any:
    """Return a field's value as Parquet takes it: a time in whole microseconds, a map as pairs."""
    if name in ("time", "feedback_time"):
        seconds = getattr(row, f"{name}_s")
        return None if seconds is None else round(seconds * 1e6)
    value = getattr(row, name)
    return list(value.items()) if isinstance(value, dict) else value
