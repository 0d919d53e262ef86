"""The registry's contents in memory, and the way to change memory and registry together."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from clipper.api.server.operations import UNSYNCED
from clipper.errors import Conflict, NotFound, RegistryUnavailable
from clipper.settings.application import link_names
from clipper.settings.server import KEEP_PREVIOUS
from clipper.supervisor.history.changes import events_of
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.registry import records
from clipper.supervisor.registry.store import Change, Delete, ForgetLater, Forgotten, Put, Registry
from clipper.supervisor.rollout import rules, wanted
from clipper.values.types import CLIPPER, Caller, ModelId, in_other_case

log = logging.getLogger(__name__)

R = TypeVar("R", records.ApplicationRecord, records.ModelRecord)


class Catalog:
    """The records of what should exist. Read the dicts; change them only through ``commit`` and ``note``.

    ``revision`` counts the changes, and ``fleet_revision`` the changes of models and versions.
    """

    def __init__(
        self,
        registry: Registry,
        record: Callable[[Sequence[NewEvent]], None] = lambda _: None,
        keep_previous: int = KEEP_PREVIOUS,
    ) -> None:
        """Load the registry. Raises RegistryUnavailable. ``record`` gets the events of each change once it is made.
        ``keep_previous``: see ``wanted.Records``.
        """
        contents = registry.load()
        self.applications = {application.name: application for application in contents.applications}
        self.models = {model.name: model for model in contents.models}
        # A version whose model's record cannot be read is left out with it.
        self.versions = {version.id: version for version in contents.versions if version.model in self.models}
        self.to_forget = set(contents.to_forget)
        self.tokens = {token.name: token for token in contents.tokens}
        self.keys = {key.name: key for key in contents.keys}
        self._unreadable = {(one.kind, one.name): one for one in contents.unreadable}
        self._registry = registry
        self._record = record
        self.keep_previous = keep_previous
        self.revision = self.fleet_revision = 0
        # By model: its versions, and the applications that link it. With thousands of models, few questions concern
        # all.
        self._versions_of: defaultdict[str, dict[ModelId, records.VersionRecord]] = defaultdict(dict)
        self._linking: defaultdict[str, dict[str, records.ApplicationRecord]] = defaultdict(dict)
        for version in self.versions.values():
            self._versions_of[version.model][version.id] = version
        for application in self.applications.values():
            self._index(None, application)
        self._running: tuple[int, Mapping[ModelId, int]] = -1, {}
        self._unsaved: dict[ModelId, records.VersionRecord] = {}
        self._name_contents()

    def application(self, name: str) -> records.ApplicationRecord:
        return _found(self.applications, "application", name, "clipper app list")

    def model(self, name: str) -> records.ModelRecord:
        return _found(self.models, "model", name, "clipper model list")

    def version(self, model: str, version: str) -> records.VersionRecord:
        self.model(model)
        try:
            return self.versions[ModelId(model, version)]
        except KeyError:
            known = ", ".join(record.version for record in self.versions_of(model)) or "none"
            raise NotFound(f"model {model!r} has no version {version!r}: it has {known}") from None

    def current_version(self, model: str) -> records.VersionRecord:
        current = self.model(model).current
        if current is None:
            raise Conflict(f"model {model!r} has no current version yet: name one")
        return self.version(model, current)

    def current(self, model: str) -> str | None:
        """Return the current version of a model; None if there is none, or no such model."""
        known = self.models.get(model)
        return known.current if known else None

    def asked(self, application: records.ApplicationRecord) -> dict[str, ModelId]:
        """Return the versions that an application's links ask now, by the names of the links."""
        named = zip(link_names(application.links), application.links, strict=True)
        asked = ((name, link.model, link.version or self.current(link.model)) for name, link in named)
        return {name: ModelId(model, version) for name, model, version in asked if version is not None}

    def versions_of(self, model: str) -> list[records.VersionRecord]:
        """Return a model's versions, oldest first."""
        return sorted(self._versions_of.get(model, {}).values(), key=lambda record: (record.created_at, record.version))

    def state_keys(self, models: Iterable[str]) -> dict[str, str]:
        """Map all versions of some models, as ``MODEL:VERSION``, to their names in learned state."""
        return {str(record.id): record.state_key for model in models for record in self.versions_of(model)}

    def linking(self, model: str) -> Iterator[tuple[records.ApplicationRecord, str | None]]:
        """Return the applications that link a model, each with the version that it pins."""
        for application in list(self._linking.get(model, {}).values()):
            for link in application.links:
                if link.model == model:
                    yield application, link.version

    def running(self) -> Mapping[ModelId, int]:
        """Return the target number of replicas of each version that should run."""
        if self._running[0] != self.revision:
            self._running = self.revision, wanted.running(self)
        return self._running[1]

    def new_application_id(self, name: str) -> str:
        """Return an id that no application of this home has had.

        Ids count up for each name: Clippers that share a store, and that each create an application of the same name,
        share its learned state. Raises RegistryUnavailable if the count cannot be stored.
        """
        return f"{name}#{self._registry.reserve(f'application {name}', 1)}"

    def problems(self) -> list[str]:
        """Return the records that could not be read when the server started."""
        return [
            f"{records.TABLES[one.kind].removesuffix('s')} {one.name!r} is left out: its record in the registry cannot "
            f"be read: {one.why}; run the Clipper that wrote it, or create it again"
            for one in self._unreadable.values()
        ]

    def taken_versions(self, model: str) -> set[str]:
        """Return a model's version names that must not be given out again."""
        unreadable = {name.partition(":")[2] for kind, name in self._unreadable if name.startswith(f"{model}:")}
        return unreadable | {version.version for version in self.versions_of(model)}

    def uses_artifact(self, digest: str) -> bool:
        """Whether a version, an application's policy or loss, or an unreadable record needs an artifact."""
        if any(digest.encode() in one.text for one in self._unreadable.values()):
            return True
        return any(version.spec.artifact == digest for version in self.versions.values()) or any(
            application.code == digest for application in self.applications.values()
        )

    def artifacts(self) -> set[str]:
        return {version.spec.artifact for version in self.versions.values()}

    def commit(self, *changes: Change, why: str = "", by: Caller = CLIPPER) -> None:
        """Make changes, all or none. Events say ``why``, and who made them. Raises RegistryUnavailable.

        They are in force at once. A call of the management API is answered once they survive, or may be lost: see
        ``UNSYNCED``.
        """
        self._registry.write(*changes)
        if (unsynced := UNSYNCED.get()) is not None:
            unsynced.add(self._registry.sync)
        events = [event if event.by else replace(event, by=by) for event in events_of(self, changes, why)]
        for change in changes:
            self._apply(change)
        self._record(events)

    def note(self, record: records.VersionRecord, why: str = "") -> None:
        """Record what happened to a version. The record is in force even if it cannot be stored yet."""
        self.note_all([(record, why)])

    def note_all(self, noted: Iterable[tuple[records.VersionRecord, str]]) -> None:
        """Record what happened to several versions, each with its reason, in one step: a commit waits for the disk."""
        noted = list(noted)
        events = [event for record, why in noted for event in events_of(self, [Put(record)], why)]
        for record, _ in noted:
            self._put_version(record)
            self._unsaved[record.id] = record
        self.save_notes()
        self._record(events)

    def save_notes(self) -> bool:
        """Store records that could not be stored before; return whether all are stored."""
        unsaved = [record for id_, record in self._unsaved.items() if self.versions.get(id_) is record]
        try:
            if unsaved:
                self._registry.write(*map(Put, unsaved))
        except RegistryUnavailable as error:
            log.warning("%(error)s", {"error": error})
            return False
        self._unsaved.clear()
        return True

    def _name_contents(self) -> None:
        """Give versions of earlier Clippers their state keys, the oldest first. They are stored with the next notes."""
        for model in self.models:
            for record in self.versions_of(model):
                if not record.state_key:
                    known = self.state_keys([model])
                    named = replace(
                        record,
                        state_key=rules.state_key(model, record.version, record.spec, known.values()),
                        predecessor_state_key=known.get(f"{model}:{record.predecessor}", ""),
                    )
                    self._put_version(named)
                    self._unsaved[named.id] = named

    def _put_version(self, record: records.VersionRecord) -> None:
        self.revision += 1
        self.fleet_revision += 1
        self.versions[record.id] = self._versions_of[record.model][record.id] = record

    def _index(self, before: records.ApplicationRecord | None, now: records.ApplicationRecord | None) -> None:
        if before is not None:
            for link in before.links:
                linking = self._linking[link.model]
                linking.pop(before.name, None)
                if not linking:  # the model may be deleted
                    del self._linking[link.model]
        if now is not None:
            for link in now.links:
                self._linking[link.model][now.name] = now

    def _apply(self, change: Change) -> None:
        self.revision += 1
        match change:
            case Put(record):
                self._unreadable.pop((type(record), records.name_of(record)), None)
                self._put(record)
            case Delete(kind, name):
                self._delete(kind, name)
            case ForgetLater(application_id):
                self.to_forget.add(application_id)
            case Forgotten(application_id):
                self.to_forget.discard(application_id)

    def _put(self, record: records.Record) -> None:
        match record:
            case records.VersionRecord():
                self._put_version(record)
            case records.ApplicationRecord():
                self._index(self.applications.get(record.name), record)
                self.applications[record.name] = record
            case records.ModelRecord():
                self.fleet_revision += 1
                self.models[record.name] = record
            case records.TokenRecord():
                self.tokens[record.name] = record
            case records.KeyRecord():
                self.keys[record.name] = record

    def _delete(self, kind: type[records.Record], name: str) -> None:
        if kind is records.ApplicationRecord:
            self._index(self.applications.pop(name), None)
        elif kind is records.VersionRecord:
            self.fleet_revision += 1
            id_ = ModelId(*name.split(":"))
            del self.versions[id_]
            del self._versions_of[id_.name][id_]
        elif kind is records.ModelRecord:
            self.fleet_revision += 1
            del self.models[name]
            for id_ in self._versions_of.pop(name, {}):
                del self.versions[id_]
        else:
            del (self.tokens if kind is records.TokenRecord else self.keys)[name]


class Numbers:
    """Numbers that are never given out twice, over all supervisors of a home."""

    # This many are reserved in the registry at once, so that a full disk does not keep a replica from being restarted.
    BLOCK = 100

    def __init__(self, registry: Registry, counter: str, skip: int = 0) -> None:
        """Continue the registry's count. ``skip``: how many numbers a new home leaves out before its first."""
        self._registry = registry
        self._counter = counter
        self._skip = skip
        self._next = self._end = 0

    def reserve(self) -> None:
        first = self._registry.reserve(self._counter, self.BLOCK)
        if first == 1 and self._skip:
            first = self._registry.reserve(self._counter, self._skip + self.BLOCK) + self._skip
        self._next, self._end = first, first + self.BLOCK

    def pass_over(self, number: int) -> None:
        """Give out only higher numbers: a process has this number, and a restored registry may count from below it.

        Raises RegistryUnavailable if it needs new numbers and cannot get them.
        """
        if number >= self._end:
            self._registry.reserve(self._counter, number + 1 - self._end)
            self.reserve()
        self._next = max(self._next, number + 1)

    def __call__(self) -> int:
        """Return the next number. Raises RegistryUnavailable if it needs new numbers and cannot get them."""
        if self._next == self._end:
            self.reserve()
        self._next += 1
        return self._next - 1


def _found(records: Mapping[str, R], kind: str, name: str, command: str) -> R:
    if (record := records.get(name)) is not None:
        return record
    other = in_other_case(name, records)
    hint = f"{command} shows those that do" if other is None else f"did you mean {other!r}?"
    raise NotFound(f"{kind} {name!r} does not exist: {hint}")
