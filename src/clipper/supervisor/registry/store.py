"""The port to the registry, and the changes that can be made to it."""

from dataclasses import dataclass
from typing import Protocol

from clipper.supervisor.registry.records import (
    ApplicationRecord,
    KeyRecord,
    ModelRecord,
    Record,
    TokenRecord,
    VersionRecord,
)

# Of what records have in any storage. A record that gains a field, with a default, makes a new version although nothing
# else changes: an older Clipper would drop the field when it writes.
SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Put:
    """Store a record. It replaces the one of the same name."""

    record: Record


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the record of that kind and name, as ``name_of`` says it; with a model, its versions too."""

    kind: type[Record]
    name: str


@dataclass(frozen=True, slots=True)
class ForgetLater:
    """Drop what the application of this id has learned from the selection store, once that is possible."""

    application_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the application of this id had learned has been dropped."""

    application_id: str


Change = Put | Delete | ForgetLater | Forgotten


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored record that cannot be read, because a newer Clipper or another program wrote it. ``text`` is its own."""

    kind: type[Record]
    name: str
    why: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """``to_forget``: ids of deleted applications whose learned state is still in the store."""

    applications: tuple[ApplicationRecord, ...]
    models: tuple[ModelRecord, ...]
    versions: tuple[VersionRecord, ...]
    to_forget: tuple[str, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


class Registry(Protocol):
    """What should exist. Every method raises ``RegistryUnavailable`` if the storage cannot be used."""

    def load(self) -> Contents:
        """Everything, each kind by name."""

    def write(self, *changes: Change) -> None:
        """Make all the changes or none. When it returns they survive the death of process and machine."""

    def reserve(self, counter: str, count: int) -> int:
        """Reserve ``count`` numbers, which are never given out again; return the first. They begin at 1."""

    def close(self) -> None: ...
