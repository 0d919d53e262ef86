"""The wire format of protobuf: messages to and from bytes.

No library is used, since clients' messages may be long and hostile: two bytes can be a message of its own, which as an
object takes a hundred. This module reads a bounded number of values, and leaves long data in place. Nor does it add
types to the pool of the process, in which other clients of the protocol have types of the same names.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from clipper.errors import MalformedRequest
from clipper.worker.frontend.rpc.schema import Enum, Field, Message

# The most values of a message that is read at once: a millisecond's work.
MAX_VALUES = 1000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {"double": (_FIXED64, struct.Struct("<d")), "float": (_FIXED32, struct.Struct("<f"))}

Values = dict[str, Any]


def fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield each field's number, wire type, and value or part of ``data``. Raises MalformedRequest."""
    at, stop = 0, len(data)
    while at < stop:
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if not number:
            raise MalformedRequest("message has a field 0: expected numbers from 1")
        if wire == _VARINT:
            value, at = read_varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = read_varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise MalformedRequest(f"message has a field of wire type {wire}: expected 0, 1, 2 or 5")
        if size > stop - at:
            raise MalformedRequest(f"message ends within its field {number}")
        yield number, wire, data[at : at + size]
        at += size


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at ``at``, and its end. Raises MalformedRequest if it is too long, or cut off."""
    value = shift = 0
    for end in range(at, min(at + 10, len(data))):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, end + 1
        shift += 7
    raise MalformedRequest("message has a number that does not end")


def split(message: Message, data: memoryview, most: int = MAX_VALUES) -> Values:
    """Return the fields of a message that are set, by name; inner messages, and bytes, are parts of ``data``.

    Raises MalformedRequest if ``data`` is no such message, or has more than ``most`` values.
    """
    found: Values = {}
    count = 0
    for number, wire, value in fields(data):
        field = message.fields.get(number)
        count += 1
        if field is not None:
            values = _values(field, wire, value, most)
            count += len(values)
            if values and field.is_repeated:
                found.setdefault(field.name, []).extend(values)
            elif values:
                found[field.name] = values[-1]
        if count > 2 * most:
            raise MalformedRequest(f"message has over {most} values: expected fewer")
    return found


def decode(message: Message, data: memoryview, most: int = MAX_VALUES) -> Values:
    """Split a message, and the messages in it; maps become dicts, and bytes are parts of ``data``."""
    found = split(message, data, most)
    for field in message.fields.values():
        if isinstance(field.type, Message) and field.name in found:
            value = found[field.name]
            if not field.is_repeated:
                found[field.name] = decode(field.type, value, most)
                continue
            if len(value) * len(field.type.fields) > most:
                raise MalformedRequest(f"message has {len(value)} {field.name}: expected fewer")
            parts = [decode(field.type, part, most) for part in value]
            if field.is_map:
                found[field.name] = {part.get("key", ""): part.get("value", {}) for part in parts}
            else:
                found[field.name] = parts
    return found


def _values(field: Field, wire: int, value: Any, most: int) -> list[Any]:
    """Return the values of a field; none if it is of another wire type, like an unknown field."""
    kind = field.kind
    if kind == "string" or kind == "bytes" or isinstance(field.type, Message):
        if wire != _BYTES:
            return []
        return [_text(field, value)] if kind == "string" else [value]
    if kind in _FIXED:
        own, packing = _FIXED[kind]
        if wire != own and not (wire == _BYTES and field.is_repeated):
            return []
        if len(value) % packing.size or len(value) > most * packing.size:
            raise MalformedRequest(f"{field.name} has {len(value)} bytes: expected whole numbers, at most {most}")
        return [number for (number,) in packing.iter_unpack(value)]
    if wire == _VARINT:
        return [_number(kind, value)]
    if wire != _BYTES or not field.is_repeated:
        return []
    numbers: list[int] = []
    at = 0
    while at < len(value):
        number, at = read_varint(value, at)
        numbers.append(_number(kind, number))
        if len(numbers) > most:
            raise MalformedRequest(f"{field.name} has over {most} numbers")
    return numbers


def _text(field: Field, value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"{field.name} is not UTF-8: {error}") from error


def _number(kind: str, value: int) -> int:
    if kind == "bool":
        return bool(value)
    if kind == "uint64":
        return value
    if kind == "uint32":
        return value & 0xFFFF_FFFF
    if kind == "int64":
        return value - (1 << 64) if value >> 63 else value
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


# -- to bytes ------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """Return a whole number as a varint. ``value``: from -2^63 to 2^64 - 1."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def delimited(number: int, data: bytes) -> bytes:
    """Return a field that is text, bytes or a message."""
    return delimited_head(number, len(data)) + data


def delimited_head(number: int, size_bytes: int) -> bytes:
    """Return the head of such a field, which precedes its data."""
    return varint(number << 3 | _BYTES) + varint(size_bytes)


def encode(message: Message, values: Mapping[str, Any]) -> bytes:
    """Return a message of values by name. Missing values have their default, which is not written."""
    parts: list[bytes] = []
    for field in message.fields.values():
        value = values.get(field.name)
        is_set = field.oneof or (isinstance(field.type, Message) and not field.is_repeated)
        if value is None or not (value or is_set):
            continue
        if field.is_map:
            value = [{"key": key, "value": each} for key, each in value.items()]
        if not field.is_repeated:
            parts.append(_field(field, value))
        elif field.kind in ("string", "bytes") or isinstance(field.type, Message):
            parts += [_field(field, each) for each in value]
        else:
            parts.append(delimited(field.number, b"".join(_scalar(field.kind, each) for each in value)))
    return b"".join(parts)


def _field(field: Field, value: Any) -> bytes:
    kind = field.kind
    if isinstance(field.type, Message):
        return delimited(field.number, encode(field.type, value))
    if isinstance(field.type, Enum):
        return varint(field.number << 3 | _VARINT) + varint(field.type.values[value])
    if kind == "string":
        return delimited(field.number, value.encode())
    if kind == "bytes":
        return delimited(field.number, value)
    wire = _FIXED[kind][0] if kind in _FIXED else _VARINT
    return varint(field.number << 3 | wire) + _scalar(kind, value)


def _scalar(kind: str, value: Any) -> bytes:
    return _FIXED[kind][1].pack(value) if kind in _FIXED else varint(value)
