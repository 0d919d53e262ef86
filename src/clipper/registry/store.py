"""The port to the registry, and the changes that can be made to it."""

from dataclasses import dataclass
from typing import Protocol

from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, Record, TokenRecord, VersionRecord
from clipper.types import ModelId

# Of what records have in any storage. A record that gains a field, with a default, makes a new version although nothing
# else changes: an older Clipper would drop the field when it writes.
SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Put:
    """Store a record. It replaces the one of the same name."""

    record: Record


@dataclass(frozen=True, slots=True)
class DeleteApplication:
    name: str


@dataclass(frozen=True, slots=True)
class ForgetLater:
    """Drop what the application of this id has learned from the selection store, once that is possible."""

    application_id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the application of this id had learned has been dropped."""

    application_id: str


@dataclass(frozen=True, slots=True)
class DeleteModel:
    """Removes its versions too."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteVersion:
    id: ModelId


@dataclass(frozen=True, slots=True)
class DeleteToken:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteKey:
    name: str


Change = Put | DeleteApplication | ForgetLater | Forgotten | DeleteModel | DeleteVersion | DeleteToken | DeleteKey


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored record that cannot be read, because a newer Clipper or another program wrote it.

    Attributes:
        kind: ``application``, ``model``, ``version`` or ``token``.
        name: its name; ``model:version`` for a version.
        text: the stored text.
    """

    kind: str
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
