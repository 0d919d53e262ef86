"""The records of what should exist, in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from clipper.settings.server import KEEP_PREVIOUS
from clipper.supervisor.registry.records import ApplicationRecord, KeyRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Put
from clipper.values.types import ModelId


@dataclass
class Records:
    applications: dict[str, ApplicationRecord] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    versions: dict[ModelId, VersionRecord] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    keep_previous: int = KEEP_PREVIOUS

    def versions_of(self, model: str) -> list[VersionRecord]:
        found = (record for record in self.versions.values() if record.model == model)
        return sorted(found, key=lambda record: (record.created_at, record.version))

    def linking(self, model: str) -> Iterator[tuple[ApplicationRecord, str | None]]:
        for application in self.applications.values():
            yield from ((application, link.version) for link in application.links if link.model == model)

    def put(self, changes: Iterable[Put]) -> None:
        for change in changes:
            match change.record:
                case ApplicationRecord() as application:
                    self.applications[application.name] = application
                case ModelRecord() as model:
                    self.models[model.name] = model
                case VersionRecord() as version:
                    self.versions[version.id] = version

    def copy(self) -> "Records":
        return Records(
            dict(self.applications), dict(self.models), dict(self.versions), dict(self.keys), self.keep_previous
        )


def records_of(*records: ApplicationRecord | ModelRecord | VersionRecord) -> Records:
    found = Records()
    found.put(map(Put, records))
    return found
