"""Records the types of outputs that workers learn from a version's first answers.

A container that is warmed up reports the type of its first answer, which is recorded before any query comes. The first
answer of a version without a sample goes to a client: each worker learns its own type from it, or that no type fits,
and the first finding that this module reads is recorded for all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.scaler import DEMAND
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import ModelId

# For this long workers may have learned different types before all follow the record. A look takes each worker some 100
# us of processor time; if the outputs of all versions are known, it is skipped.
LOOK_EVERY_S = 0.1


@dataclass(eq=False)
class OutputTypes:
    """Asks workers for the output types that records lack, and records the first answers. ``_wake`` has them pushed."""

    _catalog: Catalog
    _workers: Workers
    _wake: Callable[[], None]

    async def look(self) -> None:
        if not any(_has_to_learn(record) for record in self._catalog.versions.values()):
            return
        found: list[tuple[ModelId, str | None]] = []
        for _, reply in await self._workers.ask_all(DEMAND):
            found += [*reply.worker.learned, *((id_, None) for id_ in reply.worker.untyped)]
        if learned := learned_types(self._catalog.versions, found):
            self._catalog.note_all((record, "") for record in learned)
            self._wake()


def learned_types(
    records: Mapping[ModelId, VersionRecord], found: Iterable[tuple[ModelId, str | None]]
) -> list[VersionRecord]:
    """Return the changed records of versions without a type: each has the first that was found, or has none (None)."""
    changed: dict[ModelId, VersionRecord] = {}
    for id_, output_type in found:
        record = records.get(id_)
        if record is not None and id_ not in changed and _has_to_learn(record):
            changed[id_] = replace(record, output_type=output_type, output_is_untyped=output_type is None)
    return list(changed.values())


def _has_to_learn(record: VersionRecord) -> bool:
    return record.state == "ready" and not record.knows_outputs
