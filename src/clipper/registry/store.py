"""The port to the registry, and the changes that can be made to it."""

from dataclasses import dataclass
from typing import Protocol

from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, Record, TokenRecord, VersionRecord
from clipper.types import ModelId


@dataclass(frozen=True, slots=True)
class Put:
    """Store a record, in place of the one of the same name if there is one."""

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
    """What is stored and cannot be read: a newer Clipper wrote it, or something else than Clipper did.

    Attributes:
        kind: ``application``, ``model``, ``version`` or ``token``.
        name: its name; of a version ``model:version``.
        text: what is there.
    """

    kind: str
    name: str
    why: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """``to_forget``: ids of applications that are gone and whose learned state is not yet."""

    applications: tuple[ApplicationRecord, ...]
    models: tuple[ModelRecord, ...]
    versions: tuple[VersionRecord, ...]
    to_forget: tuple[str, ...] = ()
    tokens: tuple[TokenRecord, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


class Registry(Protocol):
    """What should exist. Every method raises ``RegistryUnavailable`` if the storage does not let it."""

    def load(self) -> Contents:
        """Everything, each kind by name."""

    def write(self, *changes: Change) -> None:
        """Make all the changes or none. When it returns they survive the death of process and machine."""

    def reserve(self, counter: str, count: int) -> int:
        """Take ``count`` numbers that nobody got before, nor will again; return the first. They begin at 1."""

    def close(self) -> None: ...
