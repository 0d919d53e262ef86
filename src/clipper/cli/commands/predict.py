"""``clipper predict``."""

import json
import sys
from typing import Annotated

import typer

from clipper.cli.names import ApplicationName
from clipper.cli.options import ApiKey, OfVersion, QueryUrl, number, parse_json
from clipper.cli.server import Server
from clipper.client import Prediction


def predict(
    server: Server,
    app: ApplicationName,
    value: Annotated[str, typer.Argument(help="The input as JSON; - reads it from standard input.", metavar="INPUT")],
    version: OfVersion = None,
    context: Annotated[str | None, typer.Option(help="The query's context, e.g. a user's id.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Numbers for the policy, as a JSON list.", metavar="JSON")
    ] = None,
    api_key: ApiKey = None,
    query_url: QueryUrl = None,
) -> None:
    """Ask an application for one prediction."""
    given = parse_json(sys.stdin.read() if value == "-" else value)
    clipper = server.connect(api_key, query_url)
    numbers = None if features is None else parse_json(features)
    prediction = clipper.predict(app, given, version=version, context=context, features=numbers)
    server.out.done(prediction, json.dumps(prediction.output, ensure_ascii=False), _remark(prediction))


def observe(
    server: Server,
    app: ApplicationName,
    label: Annotated[str | None, typer.Option(help="The right output, as JSON.", metavar="JSON")] = None,
    reward: Annotated[
        float | None,
        number(float, help="How good the answer was, from 0 to 1, instead of a label.", least=0, most=1),
    ] = None,
    query_id: Annotated[int | None, number(int, help="The query that the feedback is about.")] = None,
    value: Annotated[
        str | None, typer.Option("--input", help="The input, as JSON, instead of a query.", metavar="JSON")
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
    told = {"label": label, "input": value, "features": features}
    # Read before the server is asked, so that a wrong text costs no connection.
    read = {name: parse_json(text) for name, text in told.items() if text is not None}
    clipper = server.connect(api_key, query_url)
    observed = clipper.observe(app, reward=reward, query_id=query_id, context=context, **read)
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
