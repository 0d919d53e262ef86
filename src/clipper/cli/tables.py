"""Inputs from tables in files: CSV, and Parquet with the extra ``clipper-serving[log]``."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clipper.errors import InvalidArgument
from clipper.settings.sample_files import open_parquet
from clipper.settings.server import MOST_MAX_BODY_BYTES
from clipper.values.inputs.cells import input_of_texts, list_of
from clipper.values.records import RecordType, ValueType

TABLES = (".csv", ".parquet")
# This many rows of a Parquet file are in memory at once.
_ROWS_AT_ONCE = 1000


def read_table(path: Path, input_type: ValueType | None) -> Iterator[Any]:
    """Yield the inputs of a CSV file with names in its first line, or of a Parquet file, as JSON has them.

    A row is a record if the type is one; else a list of numbers, or the text of the only column. Raises InvalidArgument
    if the file is not such a table, or its columns are not what the type needs; OSError or ValueError if it cannot be
    read.
    """
    return _of_csv(path, input_type) if path.suffix == ".csv" else _of_parquet(path, input_type)


def _of_csv(path: Path, input_type: ValueType | None) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        csv.field_size_limit(MOST_MAX_BODY_BYTES)
        lines = csv.reader(file)
        names = next(lines, [])
        kept = kept_columns(names, input_type, path)
        for line in lines:
            if not line:
                continue
            if len(line) != len(names):
                raise InvalidArgument(f"line {lines.line_num} of {path} has {len(line)} values: expected {len(names)}")
            try:
                yield input_of_texts({names[index]: line[index] for index in kept}, input_type)
            except InvalidArgument as error:
                raise InvalidArgument(f"line {lines.line_num} of {path}: {error}") from error


def _of_parquet(path: Path, input_type: ValueType | None) -> Iterator[Any]:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        columns = [names[index] for index in kept_columns(names, input_type, path)]
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
            for row in batch.to_pylist():
                yield row if isinstance(input_type, RecordType) else list_of(list(row.values()), input_type)


def kept_columns(names: Sequence[str], input_type: ValueType | None, path: Path) -> Sequence[int]:
    """Return the places of the columns of inputs: a record's fields, beside which others may stand; else all."""
    if input_type is None:
        raise InvalidArgument(
            f"{path} cannot be read without the application's input type: give the management API's address as --url"
        )
    if len(set(names)) != len(names) or not names:
        raise InvalidArgument(f"{path} has no names in its first line, or one twice: expected one for each column")
    if not isinstance(input_type, RecordType):
        return range(len(names))
    missing = [field.name for field in input_type.fields if field.is_required and field.name not in names]
    if missing:
        raise InvalidArgument(f"{path} has no column {missing[0]!r:.100}: expected those of {str(input_type)[:300]}")
    return [index for index, name in enumerate(names) if name in input_type.names]
