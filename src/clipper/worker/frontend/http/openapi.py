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
_JSON: Json = {"description": "Any JSON."}


def _reference(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


_SCHEMAS: Json = {
    "Prediction": {
        "type": "object",
        "required": ["query_id", "output", "default", "confidence"],
        "properties": {
            "query_id": {"type": "integer", "description": "Names this query in feedback."},
            "output": _JSON | {"description": "The model's answer, or the application's default."},
            "default": {"type": "boolean", "description": "Whether the output is the application's default."},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "model": {"type": "string", "description": "The model that gave the output; absent for a default."},
            "version": {"type": "string", "description": "The version of that model."},
            "models": {
                "type": "array",
                "items": {"type": "string"},
                "description": "In place of model and version: all versions that the output was made from.",
            },
            "default_reason": {
                "type": "string",
                "description": "The error code that the answer would have without a default.",
            },
            "default_explanation": {"type": "string"},
            "low_confidence_output": _JSON | {"description": "The answer, if its confidence was too low."},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error", "cause"],
        "properties": {
            "error": {"type": "string", "enum": sorted(STATUSES)},
            "cause": {"type": "string", "description": "The message: what was expected, what came, and what to do."},
        },
    },
    "Batch": {
        "type": "object",
        "required": ["batch_predictions"],
        "properties": {
            "batch_predictions": {
                "type": "array",
                "items": {"anyOf": [_reference("Prediction"), _reference("Error")]},
            }
        },
    },
    "Observed": {
        "type": "object",
        "required": ["observed", "duplicate"],
        "properties": {
            "observed": {"type": "boolean"},
            "duplicate": {"type": "boolean", "description": "Whether it had been learned before, and was ignored."},
        },
    },
    "ObservedAll": {
        "type": "object",
        "required": ["observations"],
        "properties": {
            "observations": {
                "type": "array",
                "items": {"anyOf": [_reference("Observed"), _reference("Error")]},
            }
        },
    },
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"]},
            "inputs": {"type": "array", "items": _reference("Tensor")},
            "outputs": {"type": ["array", "null"], "items": {"type": "object", "required": ["name"]}},
        },
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _reference("Tensor")},
        },
    },
    "Tensor": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "parameters": {"type": ["object", "null"]},
            "data": {"type": "array"},
        },
    },
    "InferError": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": {"type": "string"}, "code": {"type": "string", "enum": sorted(STATUSES)}},
    },
}


class Described(NamedTuple):
    """An application to describe. ``features_size``: the number of features for each query; None if it takes none.
    ``ignores_unknown_fields``: a record may have other fields than its type."""

    name: str
    input_type: ValueType
    slo_s: float
    features_size: int | None
    needs_key: bool
    ignores_unknown_fields: bool = False


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
            "/health/live": {"get": {"summary": "Whether this worker answers.", "responses": _ok(None)}},
            "/health/ready": {
                "get": {
                    "summary": "Whether this server should be sent queries, or queries for the named applications.",
                    "parameters": [
                        {
                            "name": "application",
                            "in": "query",
                            "required": False,
                            "schema": {"type": "array", "items": {"type": "string"}},
                        }
                    ],
                    "responses": _ok(None)
                    | {"503": {"description": "It should not.", "content": _content(("Error",))}},
                }
            },
            "/v2": {"get": {"summary": "Server metadata of the Open Inference Protocol.", "responses": _ok(None)}},
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
    features: Json = {"type": "array", "items": {"type": "number"}}
    size = application.features_size
    if size is not None:
        features |= {"minItems": size, "maxItems": size}
    shared = {"context": _CONTEXT, "uid": _UID}
    predict: Json = {
        "input": value,
        "input_batch": {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_CLIENT_BATCH},
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
        **shared,
    }
    if size is not None:
        predict["features"] = {"anyOf": [features, {"type": "array", "items": features}]}
        observation["features"] = features
    observe = observation | {
        "observations": {
            "type": "array",
            "items": {"type": "object", "properties": observation},
            "minItems": 1,
            "maxItems": MAX_OBSERVATIONS,
        }
    }
    about = f"{name} takes {input_type}, and answers within {application.slo_s * 1000:g} ms."
    security: list[Json] = [{"key": []}] if application.needs_key else []

    def operation(summary: str, schema: Json, answers: tuple[str, ...], error: str, example: Json | None) -> Json:
        media: Json = {"schema": schema}
        if example is not None:
            media["example"] = example
        return {
            "post": {
                "summary": summary,
                "description": about,
                "tags": [name],
                "security": security,
                "requestBody": {"required": True, "content": {"application/json": media}},
                "responses": _ok(answers) | {"default": {"description": "An error.", "content": _content((error,))}},
            }
        }

    element = example_input(input_type)
    one = None if element is None else {"input": element[0]}
    if one is not None and size is not None:
        one["features"] = [0.0] * size
    return {
        f"/{name}/predict": operation(
            "Ask for one prediction or several.",
            {"type": "object", "properties": predict},
            ("Prediction", "Batch"),
            "Error",
            one,
        ),
        f"/{name}/observe": operation(
            "Send feedback: labels or rewards.",
            {"type": "object", "properties": observe},
            ("Observed", "ObservedAll"),
            "Error",
            {"query_id": 1, "label": 1},
        ),
        f"/v2/models/{name}/infer": operation(
            "Ask for predictions in the Open Inference Protocol.",
            _reference("InferRequest"),
            ("InferAnswer",),
            "InferError",
            None,
        ),
        f"/v2/models/{name}/predict": operation(
            "Ask for predictions with tensors; each row has an answer or an error of its own.",
            _reference("InferRequest"),
            ("Prediction", "Batch"),
            "InferError",
            None,
        ),
        f"/v2/models/{name}/observe": operation(
            "Send feedback: labels or rewards, with tensors or as to the path without /v2.",
            {"anyOf": [_reference("InferRequest"), {"type": "object", "properties": observe}]},
            ("Observed", "ObservedAll"),
            "InferError",
            {
                "inputs": [
                    {"name": "query_id", "shape": [2], "datatype": "INT64", "data": [1, 2]},
                    {"name": "label", "shape": [2], "datatype": "INT64", "data": [3, 5]},
                ]
            },
        ),
    }


def input_schema(input_type: ValueType) -> Json:
    """Return the JSON schema of an input."""
    if isinstance(input_type, RecordType):
        return {
            "type": "object",
            "properties": {field.name: _field_schema(field) for field in input_type.fields},
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
            schema = {"type": "number"}
        case _:
            schema = {"type": "integer"}
    for length in reversed(input_type.shape):
        schema = {"type": "array", "items": schema}
        if length is not None:
            schema |= {"minItems": length, "maxItems": length}
    return schema


def _columns_schema(input_type: ValueType, schema: Json) -> Json:
    """Return the property for a list of values for each field of a record; none for other inputs."""
    if not isinstance(input_type, RecordType):
        return {}
    columns = {name: {"type": "array", "items": of_field} for name, of_field in schema["properties"].items()}
    return {"input_columns": schema | {"properties": columns}}


def _field_schema(field: Field) -> Json:
    schema = input_schema(field.type)
    if field.categories:
        schema = {"enum": list(field.categories)}
    if field.is_nullable:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema if field.default is None else schema | {"default": msgspec.json.decode(field.default)}


def _ok(schemas: tuple[str, ...] | None) -> Json:
    found: Json = {"description": "The answer."}
    return {"200": found if schemas is None else found | {"content": _content(schemas)}}


def _content(schemas: tuple[str, ...]) -> Json:
    references = [_reference(schema) for schema in schemas]
    return {"application/json": {"schema": references[0] if len(references) == 1 else {"anyOf": references}}}
