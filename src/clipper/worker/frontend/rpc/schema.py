"""Reads the services and messages of the files in ``protos/``: the subset of proto3 that these files use."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import Struct

SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
# A statement, with single spaces. Other statements, such as the line on the syntax, are skipped.
_STATEMENT = re.compile(
    r"(?P<end>\})"
    r"|package (?P<package>[\w.]+);"
    r"|(?P<block>message|enum|oneof|service) (?P<name>\w+) \{"
    r"|rpc (?P<rpc>\w+)\((?P<streams_request>stream )?(?P<request>\w+)\) "
    r"returns \((?P<streams_reply>stream )?(?P<reply>\w+)\) \{\}"
    r"|map<(?P<key>\w+), (?P<value>[\w.]+)> (?P<map>\w+) = (?P<map_number>\d+);"
    r"|(?P<repeated>repeated )?(?P<kind>[\w.]+) (?P<field>\w+) = (?P<number>\d+);"
    r"|(?P<member>\w+) = (?P<member_value>\d+);"
)
_COMMENT = re.compile(r"//[^\n]*")


class Enum(Struct):
    """An enum. ``name`` includes the package, as a message's name does. ``values``: numbers by name."""

    name: str
    values: dict[str, int]


class Field(Struct):
    """
    Attributes:
        kind: a scalar's type, or the name of a message or an enum in the file; ``type`` is then that message or enum.
        oneof: the group of fields of which at most one is set; empty if the field is in none.
        is_map: whether the field is a repeated message of a key and a value.
    """

    name: str
    number: int
    kind: str
    is_repeated: bool = False
    oneof: str = ""
    is_map: bool = False
    type: "Message | Enum | None" = None


class Message(Struct):
    """``messages`` and ``enums`` are declared within it. ``is_entry``: whether it is an entry of a map."""

    name: str
    fields: dict[int, Field]
    messages: "list[Message]"
    enums: list[Enum]
    is_entry: bool = False


class Method(NamedTuple):
    """A method of a service. Requests name it by ``path``."""

    name: str
    path: str
    request: Message
    reply: Message
    streams_request: bool
    streams_reply: bool


class Service(Struct):
    name: str
    methods: dict[str, Method]


class File(Struct):
    """A file of services and messages."""

    name: str
    package: str
    messages: list[Message]
    enums: list[Enum]
    services: list[Service]

    def message(self, name: str) -> Message:
        """Return a message by its name without the package. Raises KeyError."""
        found = self.types()[f"{self.package}.{name}"]
        assert isinstance(found, Message)
        return found

    def types(self) -> dict[str, Message | Enum]:
        """Return all messages and enums, by their names with the package."""
        return {each.name: each for each in _declared(self.messages, self.enums)}


def parse(name: str, text: str) -> File:
    """Read a file of Clipper, which is valid."""
    file = File(name, "", [], [], [])
    within: list[Any] = [file]
    oneof = ""
    calls: list[tuple[Service, re.Match[str]]] = []
    for found in _STATEMENT.finditer(" ".join(_COMMENT.sub("", text).split())):
        inner = within[-1]
        if found["end"]:
            if not oneof:
                within.pop()
            oneof = ""
        elif found["package"]:
            file.package = found["package"]
        elif found["block"] == "oneof":
            oneof = found["name"]
        elif found["block"]:
            full = f"{file.package if inner is file else inner.name}.{found['name']}"
            within.append(_begun(found["block"], full, inner))
        elif found["rpc"]:
            calls.append((inner, found))
        elif found["member"]:
            inner.values[found["member"]] = int(found["member_value"])
        elif found["map"]:
            kind, number = found["map"].title().replace("_", "") + "Entry", int(found["map_number"])
            fields = {1: Field("key", 1, found["key"]), 2: Field("value", 2, found["value"])}
            inner.messages.append(Message(f"{inner.name}.{kind}", fields, [], [], is_entry=True))
            inner.fields[number] = Field(found["map"], number, kind, is_repeated=True, is_map=True)
        else:
            number = int(found["number"])
            inner.fields[number] = Field(found["field"], number, found["kind"], bool(found["repeated"]), oneof)
    types = file.types()
    for message in types.values():
        for field in message.fields.values() if isinstance(message, Message) else ():
            if field.kind not in SCALARS:
                field.type = _resolved(types, message.name, field.kind)
    for service, found in calls:
        service.methods[found["rpc"]] = Method(
            found["rpc"],
            f"/{service.name}/{found['rpc']}",
            file.message(found["request"]),
            file.message(found["reply"]),
            bool(found["streams_request"]),
            bool(found["streams_reply"]),
        )
    return file


def _begun(block: str, full: str, inner: Any) -> "Message | Enum | Service":
    """Return a new message, enum or service, and add it to the object that it is declared in."""
    match block:
        case "message":
            inner.messages.append(message := Message(full, {}, [], []))
            return message
        case "enum":
            inner.enums.append(enum := Enum(full, {}))
            return enum
    inner.services.append(service := Service(full, {}))
    return service


def _declared(messages: list[Message], enums: list[Enum]) -> Iterator[Message | Enum]:
    yield from enums
    for message in messages:
        yield message
        yield from _declared(message.messages, message.enums)


def _resolved(types: dict[str, Message | Enum], scope: str, name: str) -> Message | Enum:
    """Return the type that a name means within a message: a type that is declared in the message, or around it."""
    while f"{scope}.{name}" not in types:
        scope, _, _ = scope.rpartition(".")
    return types[f"{scope}.{name}"]
