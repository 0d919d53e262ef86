"""Write the JSON schema of clipper.yaml and the tables of its page: ``python scripts/manifest_pages.py``.

Both follow from the settings. A test holds the files against these.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from msgspec import NODEFAULT, UNSET

from clipper.cli.manifest import keys
from clipper.cli.manifest.keys import SCHEMA, TYPES, Keys, kinds_of
from clipper.settings.fields import Described
from clipper.settings.texts import read_size
from clipper.values.types import NAME

PAGE = Path(__file__).parents[1] / "docs" / "configuration-file.md"
# Each table follows a comment with its name.
TABLES: Mapping[str, Keys] = {
    "server": keys.SERVER,
    "version": keys.VERSION,
    "artifact": keys.ARTIFACT,
    "application": keys.APPLICATION,
    "link": keys.LINK,
    "key": keys.KEY,
}
_HEAD = "| key | value | default | meaning |\n|---|---|---|---|\n"
_NAMES = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Path: "path", Any: "any JSON"}

_ARTIFACT_HELP = "The model as clipper export names it, instead of model."
_VERSIONS_HELP = "Several versions by name, each with the keys of a version, instead of those."
_CURRENT_HELP = "Which of versions is the current one."
_STEPS_HELP = (
    "Experimental: the steps of a pipeline by name. One with settings of an application gets an application, "
    "PIPELINE.STEP."
)
_LINKS_HELP = "The linked models: NAME follows the current version, NAME:VERSION stays with one."
# YAML reads what looks like a number as a number; the file reads it as a text.
_TEXT_SCHEMA = {"type": ["string", "number", "boolean"]}


def schema_text() -> str:
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def make_schema() -> dict[str, Any]:
    version = _object_schema(keys.VERSION) | {
        "oneOf": [{"required": ["model"]}, {"required": ["artifact"]}],
    }
    version["properties"]["artifact"] = _object_schema(keys.ARTIFACT, ("sha256", "loader", "target"), _ARTIFACT_HELP)
    several = {
        "type": "object",
        "additionalProperties": False,
        "required": ["versions"],
        "properties": {
            "current": _TEXT_SCHEMA | {"description": _CURRENT_HELP},
            "versions": _by_name_schema({"$ref": "#/$defs/version"}, _VERSIONS_HELP) | {"minProperties": 1},
        },
    }
    application, step = _application_schema(), _application_schema()
    step["properties"] |= _object_schema(keys.STEP)["properties"]
    application["properties"]["steps"] = _by_name_schema(step, _STEPS_HELP)
    model = {"if": {"required": ["versions"]}, "then": several, "else": {"$ref": "#/$defs/version"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "clipper.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "server": _object_schema(keys.SERVER, help_=keys.SECTIONS["server"]) | {"type": ["object", "null"]},
            "models": _by_name_schema(model, keys.SECTIONS["models"]),
            "applications": _by_name_schema(application, keys.SECTIONS["applications"]),
            "keys": _by_name_schema(_object_schema(keys.KEY, ("from_env",)), keys.SECTIONS["keys"]),
        },
        "$defs": {"version": version},
    }


def _application_schema() -> dict[str, Any]:
    application = _object_schema(keys.APPLICATION) | {"type": ["object", "null"]}
    application["properties"]["links"] = {
        "description": _LINKS_HELP,
        "type": ["array", "null"],
        "items": {"anyOf": [_TEXT_SCHEMA, _object_schema(keys.LINK, ("model",))]},
    }
    return application


def _by_name_schema(body: dict[str, Any], help_: str) -> dict[str, Any]:
    return {
        "description": help_,
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": body,
    }


def _object_schema(known: Keys, required: tuple[str, ...] = (), help_: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"description": help_} if help_ else {}
    made |= {"type": "object", "additionalProperties": False}
    if required:
        made["required"] = list(required)
    return made | {"properties": {name: _value_schema(one) for name, one in known.items()}}


def _value_schema(key: Described) -> dict[str, Any]:
    forms = [_kind_schema(kind, key) for kind in kinds_of(key.type)]
    is_list = any(get_origin(kind) is tuple for kind in kinds_of(key.type))
    if key.setting.read is not None and not is_list and {"type": "string"} not in forms and key.type is not Any:
        # As on a command line: 2g, none, 1..4.
        forms.append({"type": "string"})
    if key.keyword in TYPES:
        forms.append({"type": "object", "additionalProperties": _TEXT_SCHEMA})
    made: dict[str, Any] = {"description": key.setting.help}
    if key.type is not Any and Any not in kinds_of(key.type):
        made |= forms[0] if len(forms) == 1 else {"anyOf": forms}
    if isinstance(key.default, (bool, int, float, str)) and key.setting.default is None:
        made["default"] = key.default
    return made


def _kind_schema(kind: Any, key: Described) -> dict[str, Any]:
    if kind is NoneType:
        return {"type": "null"}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _TEXT_SCHEMA}
    if get_origin(kind) is dict:
        values = {float: {"type": "number"}, str: _TEXT_SCHEMA}.get(get_args(kind)[1])
        return {"type": "object"} | ({"additionalProperties": values} if values else {})
    if kind in (int, float):
        low = "exclusiveMinimum" if key.setting.above else "minimum"
        bounds = {low: key.setting.least, "maximum": key.setting.most}
        return {"type": "integer" if kind is int else "number"} | {k: v for k, v in bounds.items() if v is not None}
    return {"type": "boolean"} if kind is bool else dict(_TEXT_SCHEMA)


def table(known: Keys) -> str:
    return _HEAD + "".join(_row(name, key) for name, key in known.items())


def _row(name: str, key: Described) -> str:
    meaning = key.setting.help.replace("|", "\\|")
    return f"| `{name}` | {_value(key)} | {_default(key)} | {meaning} |\n"


def _value(key: Described) -> str:
    setting = key.setting
    texts = [_kind(kind) for kind in kinds_of(key.type)]
    if setting.read is read_size:
        texts = ["size, e.g. `512m`" if text == "whole number" else text for text in texts]
    elif key.name == "replicas":
        texts.append("range, e.g. `1..4`")
    bounds = ""
    if setting.least is not None and setting.read is not read_size:
        low = f"above {setting.least:.16g}" if setting.above else f"{setting.least:.16g}"
        bounds = f", {low}" + (" or more" if setting.most is None else f" to {setting.most:.16g}")
    return ", ".join(text for text in dict.fromkeys(texts) if text) + bounds


def _kind(kind: Any) -> str:
    if kind is NoneType:
        return "`null`"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return "list of texts"
    if get_origin(kind) is dict:
        return "values by name"
    return _NAMES.get(kind, "")


def _default(key: Described) -> str:
    if key.setting.default is not None:
        return key.setting.default
    if key.default is NODEFAULT:
        return "must be given"
    if key.default in (None, UNSET, (), {}):
        return "none"
    return f"`{str(key.default).lower() if isinstance(key.default, bool) else key.default}`"


def with_tables(page: str) -> str:
    """The page with each table behind its comment, and otherwise as it is."""
    for name, known in TABLES.items():
        begin = f"<!-- table: {name} -->\n"
        assert begin in page, f"the page has no place for the table {name}"
        head, _, rest = page.partition(begin)
        page = head + begin + table(known) + re.sub(r"\A(\|.*\n)*", "", rest)
    return page


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
    PAGE.write_text(with_tables(PAGE.read_text()))
