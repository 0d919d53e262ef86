"""The type of a record, which has named fields: a row of a table, or several tensors.

Standard library only: the container runtime imports this file inside a model's own environment.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipper.errors import InvalidArgument
from clipper.values.types import DType, InputType

# A row of the widest tables that people train on has some hundreds of columns. Each field costs time for each query.
MAX_FIELDS = 1000
# A name's length is a u16 on the wire, and people have to read it in messages.
MAX_FIELD_NAME_BYTES = 255
# A type is in snapshots, WELCOME messages and records of the registry: 1,000 fields with 20 categories each are 400 KB.
MAX_TYPE_CHARACTERS = 512 * 1024
# Names that need no quotes in the text of a type.
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# A type's name and perhaps its sizes, which stand before categories, ``?`` and a default.
_TYPE = re.compile(r"[A-Za-z0-9]+(?:\s*\[[^\]]*\])?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXAMPLE = 'expected fields such as age: float64, job: string?, "petal length": float32 = 0.5'


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record.

    Attributes:
        type: the type of the field's value; a number has the shape ``()``.
        is_nullable: whether the value may be missing.
        default: JSON text of the value that a record without the field has; None if there is none.
        categories: the only values that the field may have, all of its dtype; empty if it may have any.
    """

    name: str
    type: InputType
    is_nullable: bool = False
    default: str | None = None
    categories: tuple[Any, ...] = ()

    @property
    def layout(self) -> tuple[str, InputType, bool]:
        """Everything that a row's bytes depend on."""
        return self.name, self.type, self.is_nullable

    @property
    def is_required(self) -> bool:
        """Whether each record must have the field."""
        return not self.is_nullable and self.default is None

    def __str__(self) -> str:
        name = self.name if _PLAIN_NAME.fullmatch(self.name) else json.dumps(self.name, ensure_ascii=False)
        of_type = str(self.type) if self.type.shape else self.type.dtype.label
        categories = f"{{{json.dumps(self.categories, ensure_ascii=False)[1:-1]}}}" if self.categories else ""
        default = "" if self.default is None else f" = {self.default}"
        return f"{name}: {of_type}{categories}{'?' if self.is_nullable else ''}{default}"


@dataclass(frozen=True, slots=True)
class RecordType:
    """The type of a record. Its fields have an order, in which containers get them. Raises InvalidArgument if there is
    no field, there are too many, or two have the same name.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.fields) <= MAX_FIELDS:
            raise InvalidArgument(f"a record has {len(self.fields)} fields: expected 1 to {MAX_FIELDS}")
        seen: set[str] = set()
        for field in self.fields:
            # A lone surrogate is a character that no text on the wire can have.
            if not 1 <= len(field.name.encode("utf-8", "replace")) <= MAX_FIELD_NAME_BYTES or _SURROGATE.search(
                field.name
            ):
                raise InvalidArgument(
                    f"the field name {field.name[:40]!r} is not valid: expected 1 to {MAX_FIELD_NAME_BYTES} bytes "
                    "of UTF-8"
                )
            if field.name in seen:
                raise InvalidArgument(f"a record has the field {field.name!r} twice: expected each name once")
            seen.add(field.name)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def layout(self) -> tuple[tuple[str, InputType, bool], ...]:
        """Everything that a row's bytes depend on."""
        return tuple(field.layout for field in self.fields)

    @property
    def elements(self) -> int:
        """The number of elements of all fields whose shape determines it."""
        return sum(field.type.elements for field in self.fields)

    def suits(self, model: object) -> bool:
        """Whether every row of this type may be sent unchanged to a model of type ``model``, a ``ValueType``."""
        return isinstance(model, RecordType) and self.layout == model.layout

    def narrowed(self, other: object) -> "RecordType | None":
        """Return the type of the records that belong to both types; None if there are none, or if the fields differ in
        their order.

        Defaults and categories are this type's.
        """
        if not isinstance(other, RecordType) or self.names != other.names:
            return None
        fields = []
        for own, their in zip(self.fields, other.fields):
            both = own.type.narrowed(their.type)
            if both is None or own.is_nullable != their.is_nullable:
                return None
            fields.append(Field(own.name, both, own.is_nullable, own.default, own.categories))
        return RecordType(tuple(fields))

    def with_categories(self, categories: Sequence[tuple[Any, ...]]) -> "RecordType":
        """Return the type with other categories, those of each field in order."""
        return RecordType(tuple(replace(field, categories=own) for field, own in zip(self.fields, categories)))

    def __str__(self) -> str:
        """``age: float64, job: string?, pixels: uint8[28,28]``."""
        return ", ".join(map(str, self.fields))

    @staticmethod
    def parse(text: str) -> "RecordType":
        """Read the text of ``str()``. Raises InvalidArgument if the text is not of that form."""
        if len(text) > MAX_TYPE_CHARACTERS:
            raise InvalidArgument(
                f"a type of {len(text)} characters is too long: expected at most {MAX_TYPE_CHARACTERS}"
            )
        return RecordType(tuple(_parse_field(part) for part in _split(text)))


# The type of an input or an output: a tensor, a text or bytes; or a record of these.
ValueType = InputType | RecordType


def parse_type(text: str) -> ValueType:
    """Read any type, as ``float64[784]`` or ``age: float64, job: string?``. Raises InvalidArgument if it is none."""
    return RecordType.parse(text) if ":" in text else InputType.parse(text)


def with_open_lengths(of: ValueType) -> ValueType:
    """Return the type with any length in place of each length: the type that is learned from an output."""
    if isinstance(of, InputType):
        return InputType(of.dtype, (None,) * len(of.shape))
    opened = [InputType(field.type.dtype, (None,) * len(field.type.shape)) for field in of.fields]
    return RecordType(tuple(replace(field, type=own) for field, own in zip(of.fields, opened)))


def _split(text: str) -> Iterator[str]:
    """Split at the commas that are outside of quotes and brackets."""
    depth, start, is_quoted, is_escaped = 0, 0, False, False
    for place, character in enumerate(text):
        if is_quoted:
            is_quoted = is_escaped or character != '"'
            is_escaped = not is_escaped and character == "\\"
        elif character == '"':
            is_quoted = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and not depth:
            yield text[start:place]
            start = place + 1
    if text[start:].strip() or not start:
        yield text[start:]


def _parse_field(text: str) -> Field:
    name, rest = _parse_name(text.strip())
    match = _TYPE.match(rest)
    if match is None:
        raise InvalidArgument(f"the field {name[:100]!r} has no type in {text[:100].strip()!r}: {_EXAMPLE}")
    of_type, rest = match[0], rest[match.end() :].strip()
    input_type = InputType.parse(of_type if "[" in of_type else f"{of_type}[]")
    categories: tuple[Any, ...] = ()
    if rest.startswith("{"):
        listed, _, rest = rest[1:].rpartition("}")
        categories = tuple(_json(f"[{listed}]", name))
        if not categories or input_type.shape or any(not _is_of(value, input_type.dtype) for value in categories):
            raise InvalidArgument(
                f"the field {name[:100]!r} has categories that are not valid: expected "
                'values of its type, such as string{"red","green"} or int64{1,2}'
            )
    is_nullable = rest.startswith("?")
    rest = rest.removeprefix("?").strip()
    default = None
    if rest.startswith("="):
        default = json.dumps(_json(rest[1:], name), ensure_ascii=False, separators=(",", ":"))
    elif rest:
        raise InvalidArgument(f"the field {name[:100]!r} has {rest[:40]!r} after its type: {_EXAMPLE}")
    return Field(name, input_type, is_nullable, default, categories)


def _parse_name(text: str) -> tuple[str, str]:
    """Return the name at the beginning of a field's text, and the text after the colon."""
    if text.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            name, end = "", 0
        rest = text[end:].strip()
    else:
        name, colon, after = text.partition(":")
        name, rest = name.strip(), colon + after
    if not name or not rest.startswith(":"):
        raise InvalidArgument(f"the field {text[:100]!r} is malformed: {_EXAMPLE}")
    return name, rest[1:].strip()


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the field {name[:100]!r} has a value that is not JSON: {text.strip()[:100]}") from error


def _is_of(value: Any, dtype: DType) -> bool:
    if dtype in (DType.STRING, DType.BYTES):
        return isinstance(value, str)
    if dtype is DType.BOOL:
        return isinstance(value, bool)
    return isinstance(value, (int, float)) and not isinstance(value, bool)
