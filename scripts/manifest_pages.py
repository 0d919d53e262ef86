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
from clipper.cli.manifest.keys import Keys, kinds_of
from clipper.cli.manifest.schema import SCHEMA, make_schema
from clipper.settings.fields import Described
from clipper.settings.texts import read_size

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


def schema_text() -> str:
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


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
