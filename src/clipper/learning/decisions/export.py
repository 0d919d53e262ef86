"""Writes joined decisions to a file: JSON lines, or Parquet with the extra ``clipper-serving[log]``."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clipper.errors import InvalidArgument, Unavailable
from clipper.learning.decisions.joining import Joined
from clipper.learning.decisions.records import Decision, Judgement, Setting, candidates_of
from clipper.learning.policies.policy import decode_row
from clipper.values.outputs.as_inputs import output_of
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import DType, InputType

# A query, by the columns of docs/decision-log.md. Lists by model are in the order of ``models``. JSON of models and
# clients is text.
Row = dict[str, Any]
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_type_of = lru_cache(256)(parse_type)


class Input(NamedTuple):
    """An input of the log: its raw buffer and its type."""

    row: bytes
    type: ValueType


def training_rows(all_joined: Iterable[Joined]) -> Iterator[Row | None]:
    """Yield the rows with their inputs, as ``input``; None in place of a row without one."""
    for joined in all_joined:
        text, row = joined.setting.input_type, joined.decision.input
        yield None if row is None or text is None else row_of(joined) | {"input": Input(row, _type_of(text))}


def row_of(joined: Joined) -> Row:
    setting, decision, judgement = joined.setting, joined.decision, joined.judgement
    answer, packed = answer_of(setting, decision), decision.features
    candidates, versions = candidates_of(setting, decision)
    return {
        "query_id": decision.query_id,
        "time_s": decision.time_s,
        "application": setting.application,
        "policy": setting.policy,
        "candidates": candidates,
        "candidate_versions": versions,
        "context": decision.context,
        "pinned": decision.pinned,
        "models": decision.models,
        # A choice that was drawn by beliefs has its probability from them.
        "shares": decision.shares if decision.beliefs is None else (None,) * len(decision.models),
        "beliefs": decision.beliefs,
        "outputs": tuple(None if output is None else _text(output) for output in decision.outputs),
        "output": None if answer is None else _text(answer),
        "is_cut": decision.is_cut,
        "default": decision.reason is not None and answer is not None,
        "reason": decision.reason,
        "confidence": decision.confidence,
        "raw_confidence": decision.raw_confidence,
        "latency_ms": decision.latency_s * 1000,
        "feedback_count": joined.feedback_count,
        "feedback_time_s": None if judgement is None else judgement.time_s,
        "label": None if judgement is None or judgement.label is None else _text(judgement.label),
        "reward": None if judgement is None else judgement.reward,
        "losses": None if judgement is None else judgement.losses,
        "loss": None if judgement is None else _loss(judgement),
        # The policy does not learn from feedback that came too late.
        "learned": None if judgement is None else judgement.losses is not None,
        "steps": decision.steps,
        "features": None if packed is None else struct.unpack_from(f"<{len(packed) // 8}d", packed),
        "feature_names": setting.feature_names or None,
        "path": [
            {
                "step": each.step,
                "application": each.application,
                "rows": each.rows,
                "cached": each.cached,
                "versions": each.versions,
                "latency_ms": each.latency_s * 1000,
                "end": each.end,
            }
            for each in decision.path
        ],
    }


def answer_of(setting: Setting, decision: Decision) -> bytes | None:
    """Return the JSON text of the answer; None if it was an error."""
    if decision.reason is not None:
        return setting.default
    if decision.answer is not None:
        return decision.answer
    return decision.outputs[0] if len(decision.outputs) == 1 else None


def _loss(judgement: Judgement) -> float | None:
    if judgement.answer_loss is not None:
        return judgement.answer_loss
    return None if judgement.reward is None else 1.0 - judgement.reward


def _text(json: bytes) -> str:
    # A text that was cut may end within a character.
    return json.decode(errors="replace")


def as_json(row: Row) -> bytes:
    """Encode a line. JSON of models and clients is copied unchanged if it is complete."""
    outputs = {model: _value(text) for model, text in zip(row["models"], row["outputs"]) if text is not None}
    values = {"outputs": outputs, "output": _value(row["output"]), "label": _value(row["label"])}
    if "input" in row:
        values["input"] = msgspec.Raw(bytes(output_of(*row["input"])))
    return msgspec.json.encode(row | values) + b"\n"


def _value(text: str | None) -> Any:
    if text is None:
        return None
    raw = text.encode()
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return msgspec.Raw(raw)


# The name of a feature's own column begins with it.
_FEATURE = "feature:"
# Rows in memory at once: a row group of Parquet, of some MB.
ROWS_PER_GROUP = 20_000


def export(rows: Iterable[Row], output: Path, input_types: Sequence[str] = ()) -> int:
    """Write all rows to ``output``, or no file at all if that fails; return the number of rows.

    ``input_types``: the types of the inputs that the rows have. Raises InvalidArgument if the name ends neither in
    .parquet nor in .jsonl, the extra for Parquet is not installed, or the inputs' types do not go into one table;
    Unavailable if the file cannot be written.
    """
    writers: dict[str, Callable[[Iterable[Row], Path], int]] = {
        ".jsonl": _write_lines,
        ".parquet": partial(_write_parquet, input_types=tuple(map(parse_type, input_types))),
    }
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
        with suppress(OSError):  # a file that could not be made cannot be removed
            making.unlink(missing_ok=True)
    return count


def _write_lines(rows: Iterable[Row], path: Path) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(as_json(row))
            count += 1
    return count


def _write_parquet(rows: Iterable[Row], path: Path, input_types: Sequence[ValueType]) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidArgument(
            "Parquet needs the extra clipper-serving[log]: install it, or export to a name that ends in .jsonl"
        ) from error
    texts, numbers = pa.list_(pa.string()), pa.map_(pa.string(), pa.float64())
    time = pa.timestamp("us", tz="UTC")
    step = pa.struct(
        [
            *(pa.field(name, pa.string()) for name in ("step", "application")),
            *(pa.field(name, pa.int32()) for name in ("rows", "cached")),
            pa.field("versions", pa.string()),
            pa.field("latency_ms", pa.float64()),
            pa.field("end", pa.string()),
        ]
    )
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
            pa.field("feature_names", texts),
            pa.field("path", pa.list_(step)),
        ]
    )
    count = 0
    groups = _groups(rows)
    first = next(groups, [])
    # Features with names have a column each, as a table that a model is trained on; and so have values of outputs.
    named = list(dict.fromkeys(name for row in first for name in row["feature_names"] or ()))
    for name in named:
        schema = schema.append(pa.field(f"{_FEATURE}{name}", pa.float64()))
    names, own = output_names(first), list(schema)
    for name in names:
        schema = schema.append(pa.field(f"{_OUTPUT}{name}", pa.string()))
    inputs = _input_columns(input_types)
    for column in inputs:
        schema = schema.append(column)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in chain([first], groups):
            columns = {field.name: [_column(row, field.name) for row in group] for field in own}
            values = [values_of(row) for row in group] if names else []
            columns |= {f"{_OUTPUT}{name}": [found.get(name) for found in values] for name in names}
            values = [_input_values(row["input"]) for row in group] if inputs else []
            columns |= {column.name: [found.get(column.name) for found in values] for column in inputs}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(group)
    return count


# The names of columns for the values of outputs begin with it.
_OUTPUT = "output."
# Outputs with more names than this are not records but objects with varying names, such as labels.
MAX_NAMES = 100


def values_of(row: Row) -> dict[str, str]:
    """Return the JSON of each value with a name in a row's output; nothing if it has none."""
    text = row["output"]
    if text is None or not text.startswith("{"):
        return {}
    try:
        return {name: bytes(value).decode() for name, value in _decode_object(text.encode()).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # one that was cut
        return {}


def output_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the names in these rows' outputs, each of which gets a column; none if there are too many."""
    names = tuple(dict.fromkeys(name for row in rows for name in values_of(row)))
    return names if len(names) <= MAX_NAMES else ()


# The prefix of the columns of a record's fields. An input that is not a record has the column "input".
_INPUT = "input."


def _input_columns(types: Sequence[ValueType]) -> list[Any]:
    """Return the columns, as fields of pyarrow, for inputs of these types."""
    import pyarrow as pa

    found = [
        [pa.field(_INPUT + field.name, arrow_type(field.type)) for field in each.fields]
        if isinstance(each, RecordType)
        else [pa.field("input", arrow_type(each))]
        for each in types
    ]
    try:
        return list(pa.unify_schemas(list(map(pa.schema, found)), promote_options="permissive")) if found else []
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidArgument(
            f"the type of the inputs has changed, so they do not go into one table ({error}): export the queries from "
            "before or after the change, by --until or --since, or write .jsonl"
        ) from error


def _input_values(of: Input) -> dict[str, Any]:
    value = decode_row(of.row, of.type)
    values = {_INPUT + name: each for name, each in value.items()} if isinstance(value, dict) else {"input": value}
    return {name: each.tolist() if hasattr(each, "tolist") else each for name, each in values.items()}


def arrow_type(of_type: InputType, of_bytes: str = "binary") -> Any:
    """Return the type of a column of Parquet for values of a type. ``of_bytes``: the name of the one for bytes."""
    import pyarrow as pa

    found = pa.type_for_alias(of_bytes if of_type.dtype is DType.BYTES else of_type.dtype.label)
    for _ in of_type.shape:
        found = pa.list_(found)
    return found


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while group := list(islice(left, ROWS_PER_GROUP)):
        yield group


@lru_cache(64)
def _places(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: place for place, name in enumerate(names)}


def _column(row: Row, name: str) -> Any:
    """Return a field's value as Parquet takes it: a time in whole microseconds, a map as pairs."""
    if name.startswith(_FEATURE):
        place = _places(row["feature_names"] or ()).get(name.removeprefix(_FEATURE))
        return None if place is None or row["features"] is None else row["features"][place]
    if name in ("time", "feedback_time"):
        seconds = row[f"{name}_s"]
        return None if seconds is None else round(seconds * 1e6)
    value = row[name]
    return list(value.items()) if isinstance(value, dict) else value
