"""The port to the registry, the changes that can be made to it, and how stored records are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

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

# The version of the records' fields in any storage. A new field makes a new version, even with a default: an older
# Clipper would drop the field when it writes.
SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Put:
    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the record of a kind and name, in the form of ``name_of``; with a model, its versions too."""

    kind: type[Record]
    name: str


@dataclass(frozen=True, slots=True)
class ForgetLater:
    """Drop what the application of this id has learned from the selection store, once that is possible."""

    application_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    application_id: str


Change = Put | Delete | ForgetLater | Forgotten


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored record that cannot be read: a newer Clipper or another program wrote it. ``text`` is its text."""

    kind: type[Record]
    name: str
    why: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """The registry's contents. ``to_forget``: ids of deleted applications whose state is still in the store."""

    applications: tuple[ApplicationRecord, ...]
    models: tuple[ModelRecord, ...]
    versions: tuple[VersionRecord, ...]
    to_forget: tuple[str, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


class Registry(Protocol):
    """The record of what should exist. Every method raises ``RegistryUnavailable`` if the storage cannot be used."""

    def load(self) -> Contents:
        """Return everything, each kind by name."""

    def write(self, *changes: Change) -> None:
        """Make all the changes or none. ``sync`` waits until they survive the death of process and machine."""

    async def sync(self) -> None:
        """Wait until all changes so far survive. Raises RegistryUnavailable if that is not known."""

    def reserve(self, counter: str, count: int) -> int:
        """Reserve ``count`` numbers, which are never given out again; return the first. They begin at 1."""

    def close(self) -> None: ...


T = TypeVar("T", ApplicationRecord, ModelRecord, VersionRecord, TokenRecord, KeyRecord)


def read_contents(rows: Mapping[type[Record], Iterable[tuple[bytes, bytes]]], to_forget: Iterable[str]) -> Contents:
    """Read the records from rows of name and text, each kind in its order."""
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
