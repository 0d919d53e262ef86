"""The OpenAPI description of the query port: each application with its paths and input."""

from typing import Any, NamedTuple

import msgspec

from clipper import __version__
from clipper.values.inputs.examples import example_input
from clipper.values.inputs.numbers import FLOATS
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import MAX_CONTEXT_LENGTH, DType
from clipper.worker.frontend.http.statuses import STATUSES
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS
from clipper.worker.frontend.predict_body import MAX_CLIENT_BATCH

Json = dict[str, Any]

_NAME: Json = {"type": ["string", "integer", "null"], "maxLength": MAX_CONTEXT_LENGTH}
_CONTEXT = _NAME | {"description": "The user, session or other group whose state the policy uses."}
_UID = _NAME | {"description": "The old name for context."}
_VERSION: Json = {"type": ["string", "integer", "null"], "description": "Query this version, not the current one."}
_TIMEOUT: Json = {
    "type": ["number", "null"],
    "exclusiveMinimum": 0,
    "description": "Shortens the latency objective of this call, in milliseconds.",
}
_NUMBER: Json = {"type": "number"}
_JSON: Json = {"description": "Any JSON."}


def _reference(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(required: str, **properties: Json) -> Json:
    """Return the schema of an object with these properties, of which the named ones are required."""
    return {"type": "object", "required": required.split(), "properties": properties}


_CODE: Json = {"type": "string", "enum": sorted(STATUSES)}
_SCHEMAS: Json = {
    "Prediction": _object(
        "query_id output default confidence",
        query_id={"type": "integer", "description": "Names this query in feedback."},
        output=_JSON | {"description": "The model's answer, or the application's default."},
        default={"type": "boolean", "description": "Whether the output is the application's default."},
        confidence={"type": "number", "minimum": 0, "maximum": 1},
        model={"type": "string", "description": "The model that gave the output; absent for a default."},
        version={"type": "string", "description": "The version of that model."},
        models=_array({"type": "string"})
        | {"description": "In place of model and version: all versions that the output was made from."},
        default_reason={
            "type": "string",
            "description": "The error code that the answer would have without a default.",
        },
        default_explanation={"type": "string"},
        low_confidence_output=_JSON | {"description": "The answer, if its confidence was too low."},
    ),
    "Error": _object(
        "error cause",
        error=_CODE,
        cause={"type": "string", "description": "The message: what was expected, what came, and what to do."},
    ),
    "Batch": _object(
        "batch_predictions",
        batch_predictions=_array({"anyOf": [_reference("Prediction"), _reference("Error")]}),
    ),
    "Observed": _object(
        "observed duplicate",
        observed={"type": "boolean"},
        duplicate={"type": "boolean", "description": "Whether it had been learned before, and was ignored."},
    ),
    "ObservedAll": _object(
        "observations", observations=_array({"anyOf": [_reference("Observed"), _reference("Error")]})
    ),
    "InferRequest": _object(
        "inputs",
        id={"type": ["string", "null"]},
        parameters={"type": ["object", "null"]},
        inputs=_array(_reference("Tensor")),
        outputs={"type": ["array", "null"], "items": {"type": "object", "required": ["name"]}},
    ),
    "InferAnswer": _object(
        "model_name outputs",
        model_name={"type": "string"},
        model_version={"type": "string"},
        id={"type": "string"},
        parameters={"type": "object"},
        outputs=_array(_reference("Tensor")),
    ),
    "Tensor": _object(
        "name shape datatype",
        name={"type": "string"},
        shape=_array({"type": "integer", "minimum": 0}),
        datatype={"type": "string"},
        parameters={"type": ["object", "null"]},
        data=_array(_JSON),
    ),
    "InferError": _object("error code", error={"type": "string"}, code=_CODE),
}


class Described(NamedTuple):
    """An application to describe.

    Attributes:
        features_size: the number of features for each query; None if it takes none.
        output_type: the type of its answers; None if they may be any JSON.
        default: JSON of its default output; None if it has none.
    """

    name: str
    input_type: ValueType
    slo_s: float
    features_size: int | None
    needs_key: bool
    ignores_unknown_fields: bool = False
    output_type: ValueType | None = None
    default: bytes | None = None
    nan_as_text: bool = False


def frame() -> Json:
    """Return the description without the paths of applications."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clipper's query port",
            "version": __version__,
            "description": "Predictions, and feedback on them. docs/http-api.md explains each field.",
        },
        "paths": {
            "/health/live": _get("is_live", "Whether this worker answers."),
            "/health/ready": _get(
                "is_ready",
                "Whether this server should be sent queries, or queries for the named applications.",
                parameters=[
                    {"name": "application", "in": "query", "required": False, "schema": _array({"type": "string"})}
                ],
                responses=_ok(None)
                | {"503": {"description": "It should not.", "content": _content((_reference("Error"),))}},
            ),
            "/v2": _get("server_metadata", "Server metadata of the Open Inference Protocol."),
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def paths_of(application: Described) -> Json:
    """Return the paths of an application, with an example of its input."""
    name, input_type = application.name, application.input_type
    value = input_schema(input_type)
    if isinstance(input_type, RecordType) and not application.ignores_unknown_fields:
        value["additionalProperties"] = False
    features = _array(_NUMBER)
    size = application.features_size
    if size is not None:
        features |= {"minItems": size, "maxItems": size}
    shared = {"context": _CONTEXT, "uid": _UID}
    predict: Json = {
        "input": value,
        "input_batch": _array(value) | {"minItems": 1, "maxItems": MAX_CLIENT_BATCH},
        **_columns_schema(input_type, value),
        "version": _VERSION,
        "timeout_ms": _TIMEOUT,
        **shared,
    }
    observation: Json = {
        "query_id": {"type": "integer"},
        "input": value,
        "label": _JSON,
        "reward": {"type": "number"},
        "id": {"type": "string"},
        "step": {"type": "string"},
        **shared,
    }
    if size is not None:
        predict["features"] = {"anyOf": [features, _array(features)]}
        observation["features"] = features
    observe = observation | {
        "observations": _array({"type": "object", "title": f"Observation of {name}", "properties": observation})
        | {"minItems": 1, "maxItems": MAX_OBSERVATIONS}
    }
    answers = "answers" if application.output_type is None else f"answers {application.output_type}"
    about = f"{name} takes {input_type}, and {answers} within {application.slo_s * 1000:g} ms."
    predictions = _predictions(application)
    security: list[Json] = [{"key": []}] if application.needs_key else []

    query: Json = {"type": "object", "title": f"Query of {name}", "properties": predict}
    feedback: Json = {"type": "object", "title": f"Feedback on {name}", "properties": observe}

    def operation(
        path: str, verb: str, summary: str, schema: Json, answers: tuple[Json, ...], example: Json | None = None
    ) -> Json:
        media: Json = {"schema": schema} | ({} if example is None else {"example": example})
        error = _reference("InferError" if path.startswith("/v2/models/") else "Error")
        post: Json = {
            "operationId": f"{verb}_{name}",
            "summary": summary,
            "description": about,
            "tags": [name],
            "security": security,
            "requestBody": {"required": True, "content": {"application/json": media}},
            "responses": _ok(answers) | {"default": {"description": "An error.", "content": _content((error,))}},
        }
        return {path: {"post": post}}

    element = example_input(input_type)
    one = None if element is None else {"input": element[0]}
    if one is not None and size is not None:
        one["features"] = [0.0] * size
    v2, observed = f"/v2/models/{name}", (_reference("Observed"), _reference("ObservedAll"))
    tensors, inferred = _reference("InferRequest"), (_reference("InferAnswer"),)
    labelled: Json = {
        "inputs": [
            {"name": "query_id", "shape": [2], "datatype": "INT64", "data": [1, 2]},
            {"name": "label", "shape": [2], "datatype": "INT64", "data": [3, 5]},
        ]
    }
    send = "Send feedback: labels or rewards"
    each_row = "Ask for predictions with tensors; each row has an answer or an error of its own."
    as_without = f"{send}, with tensors or as to the path without /v2."
    return (
        operation(f"/{name}/predict", "predict", "Ask for one prediction or several.", query, predictions, one)
        | operation(f"/{name}/observe", "observe", f"{send}.", feedback, observed, {"query_id": 1, "label": 1})
        | operation(f"{v2}/infer", "infer", "Ask for predictions in the Open Inference Protocol.", tensors, inferred)
        | operation(f"{v2}/predict", "v2_predict", each_row, tensors, predictions)
        | operation(f"{v2}/observe", "v2_observe", as_without, {"anyOf": [tensors, feedback]}, observed, labelled)
    )


def _predictions(application: Described) -> tuple[Json, ...]:
    """Return the schemas of an answer to one input and to several, with the type of the application's outputs."""
    of_type = application.output_type
    if of_type is None:
        return _reference("Prediction"), _reference("Batch")
    number: Json = {"type": ["number", "null"], "description": "NaN and infinity are null."}
    if application.nan_as_text:
        number = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity", None]}]}
    output = input_schema(of_type, number)
    if isinstance(of_type, RecordType):
        output |= {"required": list(of_type.names), "additionalProperties": False}
    own: Json = _SCHEMAS["Prediction"]["properties"]
    shown = own["output"] | output
    if application.default is not None and application.default[:1] == b"n":
        shown = own["output"] | {"anyOf": [output, {"type": "null"}]}
    prediction: Json = _SCHEMAS["Prediction"] | {
        "title": f"Prediction of {application.name}",
        "properties": own | {"output": shown, "low_confidence_output": own["low_confidence_output"] | output},
    }
    parts = _array({"anyOf": [prediction, _reference("Error")]})
    batch = _SCHEMAS["Batch"] | {"title": f"Batch of {application.name}", "properties": {"batch_predictions": parts}}
    return prediction, batch


def input_schema(input_type: ValueType, number: Json = _NUMBER) -> Json:
    """Return the JSON schema of an input, or of an output. ``number``: the schema of a float."""
    if isinstance(input_type, RecordType):
        return {
            "type": "object",
            "properties": {field.name: _field_schema(field, number) for field in input_type.fields},
            "required": [field.name for field in input_type.fields if field.is_required],
        }
    match input_type.dtype:
        case DType.STRING:
            return {"type": "string"}
        case DType.BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        case DType.BOOL:
            schema: Json = {"type": "boolean"}
        case dtype if dtype in FLOATS:
            schema = number
        case _:
            schema = {"type": "integer"}
    for length in reversed(input_type.shape):
        schema = _array(schema)
        if length is not None:
            schema |= {"minItems": length, "maxItems": length}
    return schema


def _columns_schema(input_type: ValueType, schema: Json) -> Json:
    """Return the property for a list of values for each field of a record; none for other inputs."""
    if not isinstance(input_type, RecordType):
        return {}
    columns = {name: _array(of_field) for name, of_field in schema["properties"].items()}
    return {"input_columns": schema | {"properties": columns}}


def _field_schema(field: Field, number: Json) -> Json:
    schema = input_schema(field.type, number)
    if field.categories:
        schema = {"enum": list(field.categories)}
    if field.is_nullable:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema if field.default is None else schema | {"default": msgspec.json.decode(field.default)}


def _get(operation: str, summary: str, **more: object) -> Json:
    return {"get": {"operationId": operation, "summary": summary, "responses": _ok(None)} | more}


def _ok(schemas: tuple[Json, ...] | None) -> Json:
    found: Json = {"description": "The answer."}
    return {"200": found if schemas is None else found | {"content": _content(schemas)}}


def _content(schemas: tuple[Json, ...]) -> Json:
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}}}
