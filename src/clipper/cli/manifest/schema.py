"""The JSON schema of the file, for editors. ``scripts/manifest_pages.py`` writes it beside this module."""

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from clipper.cli.manifest import keys
from clipper.cli.manifest.keys import TYPES, Keys, kinds_of
from clipper.settings.fields import Described
from clipper.values.types import NAME

# In the wheel, so that an editor finds it without a network.
SCHEMA = Path(__file__).with_name("schema.json")

# YAML reads what looks like a number as a number; the file reads it as a text.
_TEXT = {"type": ["string", "number", "boolean"]}


def make_schema() -> dict[str, Any]:
    version = _object(keys.VERSION) | {
        "oneOf": [{"required": ["model"]}, {"required": ["artifact"]}],
    }
    version["properties"]["artifact"] = _object(keys.ARTIFACT, ("sha256", "loader", "target"), keys.ARTIFACT_HELP)
    several = {
        "type": "object",
        "additionalProperties": False,
        "required": ["versions"],
        "properties": {
            "current": _TEXT | {"description": keys.CURRENT_HELP},
            "versions": _named({"$ref": "#/$defs/version"}, keys.VERSIONS_HELP) | {"minProperties": 1},
        },
    }
    application, step = _application(), _application()
    step["properties"] |= _object(keys.STEP)["properties"]
    application["properties"]["steps"] = _named(step, keys.STEPS_HELP)
    model = {"if": {"required": ["versions"]}, "then": several, "else": {"$ref": "#/$defs/version"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "clipper.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "server": _object(keys.SERVER, help_=keys.SECTIONS["server"]) | {"type": ["object", "null"]},
            "models": _named(model, keys.SECTIONS["models"]),
            "applications": _named(application, keys.SECTIONS["applications"]),
            "keys": _named(_object(keys.KEY, ("from_env",)), keys.SECTIONS["keys"]),
        },
        "$defs": {"version": version},
    }


def _application() -> dict[str, Any]:
    application = _object(keys.APPLICATION) | {"type": ["object", "null"]}
    application["properties"]["links"] = {
        "description": keys.LINKS_HELP,
        "type": ["array", "null"],
        "items": {"anyOf": [_TEXT, _object(keys.LINK, ("model",))]},
    }
    return application


def _named(body: dict[str, Any], help_: str) -> dict[str, Any]:
    return {
        "description": help_,
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": body,
    }


def _object(known: Keys, required: tuple[str, ...] = (), help_: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"description": help_} if help_ else {}
    made |= {"type": "object", "additionalProperties": False}
    if required:
        made["required"] = list(required)
    return made | {"properties": {name: _value(one) for name, one in known.items()}}


def _value(key: Described) -> dict[str, Any]:
    forms = [_form(kind, key) for kind in kinds_of(key.type)]
    is_list = any(get_origin(kind) is tuple for kind in kinds_of(key.type))
    if key.setting.read is not None and not is_list and {"type": "string"} not in forms and key.type is not Any:
        # As on a command line: 2g, none, 1..4.
        forms.append({"type": "string"})
    if key.keyword in TYPES:
        forms.append({"type": "object", "additionalProperties": _TEXT})
    made: dict[str, Any] = {"description": key.setting.help}
    if key.type is not Any and Any not in kinds_of(key.type):
        made |= forms[0] if len(forms) == 1 else {"anyOf": forms}
    if isinstance(key.default, (bool, int, float, str)) and key.setting.default is None:
        made["default"] = key.default
    return made


def _form(kind: Any, key: Described) -> dict[str, Any]:
    if kind is NoneType:
        return {"type": "null"}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _TEXT}
    if get_origin(kind) is dict:
        values = {float: {"type": "number"}, str: _TEXT}.get(get_args(kind)[1])
        return {"type": "object"} | ({"additionalProperties": values} if values else {})
    if kind in (int, float):
        low = "exclusiveMinimum" if key.setting.above else "minimum"
        bounds = {low: key.setting.least, "maximum": key.setting.most}
        return {"type": "integer" if kind is int else "number"} | {k: v for k, v in bounds.items() if v is not None}
    return {"type": "boolean"} if kind is bool else dict(_TEXT)
