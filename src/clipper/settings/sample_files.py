"""Reads samples of records from tables in files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipper.errors import InvalidArgument

# This many rows of a file are read, and kept with the version. Several rows show which values may be missing.
MAX_SAMPLE_ROWS = 100
# pandas reads these as a missing value.
_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
# The bytes read of each column of a Parquet file. A table of a thousand columns takes 64 MiB.
_BUFFER_BYTES = 64 * 1024
_TRUTHS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


def read_sample_table(path: Path) -> list[dict[str, Any]]:
    """Read the first rows of a ``.csv``, ``.jsonl`` or ``.parquet`` file as records, of which None is a missing value.
    Raises InvalidArgument if the file is not of that form, or has no row; OSError if it cannot be read.
    """
    try:
        rows = _READERS[path.suffix](path)
    except (ValueError, csv.Error, StopIteration, RecursionError) as error:
        raise InvalidArgument(f"{path} is not a {path.suffix[1:]} file with at least one row: {error}") from error
    if not rows:
        raise InvalidArgument(f"{path} has no row: expected at least one")
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(MAX_SAMPLE_ROWS))]
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("its rows have different numbers of values")
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _column(texts: Sequence[str]) -> list[Any]:
    """Return the values of a column as pandas reads them: all numbers, all truths, or all texts."""
    found = [None if text in _MISSING else text for text in texts]
    for convert in (_number, _TRUTHS.__getitem__):
        try:
            return [None if text is None else convert(text) for text in found]
        except (KeyError, ValueError):
            continue
    return found


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        lines = [line for line, _ in zip((line for line in file if line.strip()), range(MAX_SAMPLE_ROWS))]
    rows = [json.loads(line) for line in lines]
    if not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    with open_parquet(path) as file:
        rows: list[dict[str, Any]] = next(file.iter_batches(MAX_SAMPLE_ROWS)).to_pylist()
    return rows


def open_parquet(path: Path) -> Any:
    """Open a file of Parquet, as pyarrow has it. Raises InvalidArgument without the library.

    Each column is read through a buffer: pyarrow by itself first reads all bytes of a row group, maybe gigabytes.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidArgument("Parquet needs the extra clipper-serving[log]: install it, or give CSV") from error
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)


_READERS = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
TABLES = tuple(_READERS)
