"""Reads stored records. One that cannot be read costs no other its place."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from clipper.supervisor.registry.records import (
    ApplicationRecord,
    KeyRecord,
    ModelRecord,
    Record,
    TokenRecord,
    VersionRecord,
    name_of,
)
from clipper.supervisor.registry.store import Contents, Unreadable

T = TypeVar("T", ApplicationRecord, ModelRecord, VersionRecord, TokenRecord, KeyRecord)


def read_contents(rows: Mapping[type[Record], Iterable[tuple[bytes, bytes]]], to_forget: Iterable[str]) -> Contents:
    """The records of rows of name and text, each kind in its order."""
    unreadable: list[Unreadable] = []

    def read(kind: type[T]) -> tuple[T, ...]:
        decode, found = msgspec.json.Decoder(kind).decode, []
        for name, text in rows[kind]:
            try:
                one = decode(text)
                if name_of(one).encode() != name:
                    raise ValueError(f"it calls itself {name_of(one)!r}")
                found.append(one)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                unreadable.append(Unreadable(kind, name.decode(errors="replace"), str(error), text))
        return tuple(found)

    return Contents(
        read(ApplicationRecord),
        read(ModelRecord),
        read(VersionRecord),
        tuple(to_forget),
        read(TokenRecord),
        read(KeyRecord),
        tuple(unreadable),
    )
