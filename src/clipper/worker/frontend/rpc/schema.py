"""Services and messages as the files in ``protos/`` have them: the subset of proto3 that these use."""

import re
from collections.abc import Iterator
from typing import NamedTuple

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
_TOKEN = re.compile(r'"[^"]*"|[\w.]+|[{}()<>=;,]')
_COMMENT = re.compile(r"//[^\n]*")


class Enum(Struct):
    """``name``: with its package, as those of messages are. ``values``: numbers by name."""

    name: str
    values: dict[str, int]


class Field(Struct):
    """
    Attributes:
        kind: a scalar's type, or that of a message or an enum as the file has it, which ``type`` is then.
        oneof: the group of which one at most is set; empty if it is in none.
        is_map: a repeated message of a key and a value.
    """

    name: str
    number: int
    kind: str
    is_repeated: bool = False
    oneof: str = ""
    is_map: bool = False
    type: "Message | Enum | None" = None


class Message(Struct):
    """
    Attributes:
        fields: by their numbers.
        messages, enums: those that are declared within it.
        is_entry: of a map.
    """

    name: str
    fields: dict[int, Field]
    messages: "list[Message]"
    enums: list[Enum]
    is_entry: bool = False


class Method(NamedTuple):
    """``path`` is what requests for it name."""

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
        """``name``: without its package. Raises KeyError."""
        found = self.types()[f"{self.package}.{name}"]
        assert isinstance(found, Message)
        return found

    def types(self) -> dict[str, Message | Enum]:
        """All messages and enums, by their names with the package."""
        return {each.name: each for each in _declared(self.messages, self.enums)}


def parse(name: str, text: str) -> File:
    """Read a file of ours, which is valid."""
    return _Parser(name, _TOKEN.findall(_COMMENT.sub("", text))).file


def _declared(messages: list[Message], enums: list[Enum]) -> Iterator[Message | Enum]:
    yield from enums
    for message in messages:
        yield message
        yield from _declared(message.messages, message.enums)


class _Parser:
    def __init__(self, name: str, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self.file = File(name, "", [], [], [])
        services: list[tuple[str, list[tuple[str, str, str, bool, bool]]]] = []
        while self._at < len(tokens):
            match self._next():
                case "package":
                    self.file.package = self._next()
                    self._next()
                case "message":
                    self.file.messages.append(self._message(self.file.package))
                case "enum":
                    self.file.enums.append(self._enum(self.file.package))
                case "service":
                    services.append(self._service())
                case _:  # syntax = "proto3"
                    self._at += 3
        types = self.file.types()
        for found in types.values():
            if isinstance(found, Message):
                for field in found.fields.values():
                    if field.kind not in SCALARS:
                        field.type = _resolved(types, found.name, field.kind)
        for service, methods in services:
            full = f"{self.file.package}.{service}"
            made = {
                method: Method(
                    method,
                    f"/{full}/{method}",
                    self.file.message(request),
                    self.file.message(reply),
                    streams_request,
                    streams_reply,
                )
                for method, request, reply, streams_request, streams_reply in methods
            }
            self.file.services.append(Service(full, made))

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _message(self, scope: str) -> Message:
        message = Message(f"{scope}.{self._next()}", {}, [], [])
        self._next()
        self._body(message, "")
        return message

    def _body(self, message: Message, oneof: str) -> None:
        while (token := self._next()) != "}":
            if token == "message":
                message.messages.append(self._message(message.name))
            elif token == "enum":
                message.enums.append(self._enum(message.name))
            elif token == "oneof":
                name = self._next()
                self._next()
                self._body(message, name)
            elif token == "map":
                self._map(message)
            else:
                is_repeated = token == "repeated"
                kind = self._next() if is_repeated else token
                self._add(message, kind, is_repeated=is_repeated, oneof=oneof)

    def _add(self, message: Message, kind: str, is_repeated: bool, oneof: str = "", is_map: bool = False) -> Field:
        name, _, number, _ = (self._next() for _ in range(4))
        field = message.fields[int(number)] = Field(name, int(number), kind, is_repeated, oneof, is_map)
        return field

    def _map(self, message: Message) -> None:
        _, key, _, value, _ = (self._next() for _ in range(5))
        field = self._add(message, "", is_repeated=True, is_map=True)
        field.kind = "".join(part.capitalize() for part in field.name.split("_")) + "Entry"
        fields = {1: Field("key", 1, key), 2: Field("value", 2, value)}
        message.messages.append(Message(f"{message.name}.{field.kind}", fields, [], [], is_entry=True))

    def _enum(self, scope: str) -> Enum:
        enum = Enum(f"{scope}.{self._next()}", {})
        self._next()
        while (name := self._next()) != "}":
            self._next()
            enum.values[name] = int(self._next())
            self._next()
        return enum

    def _service(self) -> tuple[str, list[tuple[str, str, str, bool, bool]]]:
        name = self._next()
        self._next()
        methods = []
        while self._next() != "}":
            method = self._next()
            request, streams_request = self._argument()
            self._next()  # returns
            reply, streams_reply = self._argument()
            self._at += 2  # {}
            methods.append((method, request, reply, streams_request, streams_reply))
        return name, methods

    def _argument(self) -> tuple[str, bool]:
        self._next()
        first = self._next()
        streams = first == "stream"
        name = self._next() if streams else first
        self._next()
        return name, streams


def _resolved(types: dict[str, Message | Enum], scope: str, name: str) -> Message | Enum:
    """The type that a name means within a message: of those that are declared in it, or around it."""
    while f"{scope}.{name}" not in types:
        scope, _, _ = scope.rpartition(".")
    return types[f"{scope}.{name}"]
