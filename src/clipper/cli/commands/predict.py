"""``clipper predict``."""

import json
import re
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from clipper.cli.names import ApplicationName
from clipper.cli.options import ApiKey, QueryUrl, number, parse_json
from clipper.cli.server import Server
from clipper.cli.tables import TABLES, read_table
from clipper.client import Prediction
from clipper.errors import ClipperError, InvalidArgument
from clipper.values.inputs.cells import record_of_texts
from clipper.values.records import RecordType, ValueType, parse_type

# The most rows of a table that are asked: more are no try, but a job for a program.
MAX_ROWS = 10_000
# The beginning of NAME=VALUE. JSON begins with none of these characters, or has no equals sign.
_FIELD = re.compile(r"[^\s{\[\"'=-][^=]*=")


def predict(
    server: Server,
    app: ApplicationName,
    value: Annotated[
        list[str],
        typer.Argument(
            help="The input as JSON, or a record's fields as NAME=VALUE; - reads JSON from standard input, and "
            "@FILE reads it from a file. Each row of a .csv or .parquet file is an input.",
            metavar="INPUT...",
        ),
    ],
    version: Annotated[str | None, typer.Option(help="Ask this version of a linked model, without the policy.")] = None,
    context: Annotated[str | None, typer.Option(help="The query's context, e.g. a user's id.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Numbers for the policy, as a JSON list.", metavar="JSON")
    ] = None,
    api_key: ApiKey = None,
    query_url: QueryUrl = None,
) -> None:
    """Ask an application for a prediction, or for the predictions of a table's rows."""
    path = Path(value[0][1:]) if len(value) == 1 and value[0].startswith("@") else None
    # Before the server is asked, so that a wrong text costs no connection.
    given = _read(value, path)
    numbers = None if features is None else parse_json(features)
    clipper = server.connect(api_key, query_url)
    if path is not None and path.suffix in TABLES:
        inputs = _rows_of(path, _input_type(clipper.input_type(app), app))
        found = clipper.predict_batch(app, inputs, version=version, context=context, features=numbers)
        texts = [f"error: {each}" if isinstance(each, ClipperError) else _shown(each.output) for each in found]
        server.out.done([_told(each) for each in found], "\n".join(texts))
        return
    if _FIELD.match(value[0]):
        record = _input_type(clipper.input_type(app), app)
        if not isinstance(record, RecordType):
            raise InvalidArgument(f"{app} takes {record}, and no fields: give the input as JSON")
        given = record_of_texts(given, record)
    prediction = clipper.predict(app, given, version=version, context=context, features=numbers)
    server.out.done(prediction, _shown(prediction.output), _remark(prediction))


def _input_type(text: str, app: str) -> ValueType:
    if not text:
        raise InvalidArgument(
            f"the server does not tell the input type of {app!r}: check the name with clipper app list, "
            "and the API key if the application requires one"
        )
    return parse_type(text)


def _read(value: list[str], path: Path | None) -> Any:
    """Return the input; of fields on the command line, their texts; None for a table."""
    if path is not None:
        return None if path.suffix in TABLES else parse_json(value[0])
    if len(value) == 1 and not _FIELD.match(value[0]):
        return parse_json(value[0])
    parts = [each.partition("=") for each in value]
    wrong = next((each for each, (name, equals, _) in zip(value, parts) if not equals or not name), None)
    if wrong is not None:
        raise InvalidArgument(f"{wrong[:100]!r} is no field: expected NAME=VALUE, or the whole input as JSON")
    return {name: text for name, _, text in parts}


def _rows_of(path: Path, input_type: ValueType) -> list[Any]:
    try:
        rows = list(islice(read_table(path, input_type), MAX_ROWS + 1))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
    if not 1 <= len(rows) <= MAX_ROWS:
        count = f"over {MAX_ROWS}" if rows else "no"
        raise InvalidArgument(f"{path} has {count} rows: expected 1 to {MAX_ROWS}")
    return rows


def _shown(output: Any) -> str:
    return json.dumps(output, ensure_ascii=False)


def _told(answer: Prediction | ClipperError) -> Any:
    return {"error": answer.code, "cause": str(answer)} if isinstance(answer, ClipperError) else answer


def observe(
    server: Server,
    app: ApplicationName,
    label: Annotated[str | None, typer.Option(help="The right output, as JSON, @FILE or -.", metavar="JSON")] = None,
    reward: Annotated[
        float | None,
        number(float, help="How good the answer was, from 0 to 1, instead of a label.", least=0, most=1),
    ] = None,
    query_id: Annotated[int | None, number(int, help="The query that the feedback is about.")] = None,
    step: Annotated[
        str | None, typer.Option(help="The step of a pipeline that it is about, with --query-id.", metavar="NAME")
    ] = None,
    value: Annotated[
        str | None, typer.Option("--input", help="The input, as JSON, @FILE or -, instead of a query.", metavar="JSON")
    ] = None,
    context: Annotated[str | None, typer.Option(help="The input's context, e.g. a user's id.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Numbers that came with the input, as a JSON list.", metavar="JSON")
    ] = None,
    api_key: ApiKey = None,
    query_url: QueryUrl = None,
) -> None:
    """Send an application the right output for a query, so that its policy learns from it."""
    if (label is None) == (reward is None):
        raise typer.BadParameter("give either --label or --reward")
    if (query_id is None) == (value is None):
        raise typer.BadParameter("give either --query-id or --input")
    if step is not None and query_id is None:
        raise typer.BadParameter("--step goes with --query-id")
    told = {"label": label, "input": value, "features": features}
    # Read before the server is asked, so that a wrong text costs no connection.
    read = {name: parse_json(text) for name, text in told.items() if text is not None}
    clipper = server.connect(api_key, query_url)
    observed = clipper.observe(app, reward=reward, query_id=query_id, context=context, step=step, **read)
    text = "this feedback had come before, and is not counted again" if observed.duplicate else "learned"
    server.out.done(observed, text, f"next: clipper app policy {app}")


def _remark(prediction: Prediction) -> str:
    if not prediction.default:
        return ""
    why = prediction.default_explanation or prediction.default_reason
    if prediction.default_reason == "low_confidence":
        unsure = json.dumps(prediction.low_confidence_output, ensure_ascii=False)
        why = f"{why}; it was {unsure}, with confidence {prediction.confidence:.2f}"
    return f"this is the default output: {why}"
