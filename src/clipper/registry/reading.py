"""Reads stored records. One that cannot be read costs no other its place."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, TokenRecord, VersionRecord
from clipper.registry.store import Unreadable

T = TypeVar("T", ApplicationRecord, ModelRecord, VersionRecord, TokenRecord, KeyRecord)


def read_records(
    kind: str, record: type[T], rows: Iterable[tuple[bytes, bytes]], unreadable: list[Unreadable]
) -> tuple[T, ...]:
    """The records of rows of name and text, in their order; an unreadable one is added to ``unreadable``."""
    decode = msgspec.json.Decoder(record).decode
    found = []
    for name, text in rows:
        try:
            one = decode(text)
            own_name = f"{one.model}:{one.version}" if isinstance(one, VersionRecord) else one.name
            if own_name.encode() != name:
                raise ValueError(f"it calls itself {own_name!r}")
            found.append(one)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            unreadable.append(Unreadable(kind, name.decode(errors="replace"), str(error), text))
    return tuple(found)
