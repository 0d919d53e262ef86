"""What should exist, in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, VersionRecord
from clipper.types import ModelId


@dataclass
class Records:
    applications: dict[str, ApplicationRecord] = field(default_factory=dict)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    versions: dict[ModelId, VersionRecord] = field(default_factory=dict)
    keys: dict[str, KeyRecord] = field(default_factory=dict)

    def versions_of(self, model: str) -> list[VersionRecord]:
        found = (record for record in self.versions.values() if record.model == model)
        return sorted(found, key=lambda record: (record.created_at, record.version))

    def linking(self, model: str) -> Iterator[tuple[ApplicationRecord, str | None]]:
        for application in self.applications.values():
            yield from ((application, link.version) for link in application.links if link.model == model)

    def copy(self) -> "Records":
        return Records(dict(self.applications), dict(self.models), dict(self.versions), dict(self.keys))


def records_of(*records: ApplicationRecord | ModelRecord | VersionRecord) -> Records:
    found = Records()
    for record in records:
        match record:
            case ApplicationRecord():
                found.applications[record.name] = record
            case ModelRecord():
                found.models[record.name] = record
            case VersionRecord():
                found.versions[record.id] = record
    return found
