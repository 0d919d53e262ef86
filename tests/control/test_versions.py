"""A supervisor talks to workers of the version of the control channel before its own, and the other way round.

``tests/control/channel/N.json`` says what messages of version N are made of: each struct's fields, their types, and
which may be left out. A later field has to be optional, and an earlier one has to stay.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clipper.control.messages import CHANNEL_VERSION, AnyCommand, AnyReply

FOLDER = Path(__file__).parent / "channel"
# A supervisor of before sends these only to workers of its own build, or can do without an answer: it leaves out a
# worker that does not know GetLoads, until that worker has been replaced, as it does with each that is not its own.
ENDED = {
    *("GetLoads", "Loads", "VersionLoad"),
    *("GetReadings", "Readings", "ApplicationReading", "ModelReading", "VersionReading"),
    *("GetBatchLimits", "BatchLimits", "GetDemand", "Demand"),
}


def structs() -> dict[str, Any]:
    """Of what messages are made of today, as a JSON schema of each struct by its name."""
    _, found = msgspec.json.schema_components((AnyCommand, AnyReply), ref_template="{name}")
    return found


def written(version: int) -> dict[str, Any]:
    # A struct's own name does not go over the channel.
    return json.loads((FOLDER / f"{version}.json").read_text().replace('"StandingStatistics"', '"Standing"'))


def breaks(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where messages of before are not understood now, or those of now by what is from before."""
    found = []
    for name, struct in before.items():
        if name not in now:
            found.append(f"{name} is gone")
            continue
        fields = now[name].get("properties", {})
        found += [
            f"{name}.{field} was {shape}, and is {fields.get(field)}"
            for field, shape in struct.get("properties", {}).items()
            if not _understood(_types(shape), _types(fields.get(field)))
        ]
        added = fields.keys() - struct.get("properties", {}).keys()
        found += [f"{name}.{field} is new and has no default" for field in added & {*now[name].get("required", ())}]
    return found


def _understood(before: Any, now: Any) -> bool:
    """Whether they are alike. A choice may have more values: one that is added goes only to who is told to use it."""
    if isinstance(before, dict) and isinstance(now, dict):
        if {*before} == {*now} == {"enum"}:
            return {*before["enum"]} <= {*now["enum"]}
        if {*before} == {*now} == {"anyOf"} and len(before["anyOf"]) == len(now["anyOf"]):
            return all(map(_understood, before["anyOf"], now["anyOf"]))
        if {*before} == {"enum"} and now == {"type": "string"}:
            return all(isinstance(value, str) for value in before["enum"])
    return bool(before == now)


def _types(shape: Any) -> Any:
    """A field's type, without its default: each side may have its own."""
    return {key: value for key, value in shape.items() if key != "default"} if isinstance(shape, dict) else shape


@pytest.mark.parametrize("version", [number for number in (CHANNEL_VERSION - 1, CHANNEL_VERSION) if number > 0])
def test_messages_of_adjacent_versions_are_understood(version: int) -> None:
    """If this fails: give what is new a default, and keep what was; or, where that cannot be, raise CHANNEL_VERSION."""
    before = {name: struct for name, struct in written(version).items() if name not in ENDED}
    assert breaks(before, structs()) == []


def test_what_breaks_is_found() -> None:
    now = {"A": {"properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["x", "y"]}}
    assert breaks(now, now) == []
    choice, text = (
        {"A": {"properties": {"x": {"anyOf": [{"type": "null"}, shape]}}}}
        for shape in ({"enum": ["a"]}, {"type": "string"})
    )
    assert (breaks(choice, text), len(breaks(text, choice))) == ([], 1)
    few, more = ({"A": {"properties": {"x": {"enum": values}}}} for values in (["a"], ["a", "b"]))
    assert (breaks(few, more), len(breaks(more, few))) == ([], 1)
    assert breaks(
        {"A": {"properties": {"x": {"type": "string"}}}, "B": {"properties": {"z": {}}}, "C": {}}, now | {"B": {}}
    ) == [
        "A.x was {'type': 'string'}, and is {'type': 'integer'}",
        "A.y is new and has no default",
        "B.z was {}, and is None",
        "C is gone",
    ]
