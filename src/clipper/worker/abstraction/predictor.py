"""The queues of all versions that a query worker can query; follows the snapshot."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from clipper.control.difference import Difference, Holding
from clipper.control.snapshot import ModelSnapshot, Snapshot, VersionSnapshot
from clipper.settings.server import MAX_OUTPUT_BYTES
from clipper.values.records import ValueType
from clipper.values.types import ModelId
from clipper.worker.abstraction.cache.clock import ClockCache
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.turns import Turns
from clipper.worker.telemetry.watch import Watch

# A sleeping version wakes if a query asked it within this time, even if none waits for it any more. The supervisor
# looks several times within it.
DEMAND_S = 2.0


class Predictor:
    """Owns the prediction cache and a ``ModelQueue`` for each version.

    Args:
        cache_capacity_bytes: bound of the cache; 0 keeps no outputs.
        seed: the seed of the cache's hash; see ``ClockCache``.
        node: the address of this worker's node, whose replicas it prefers; if empty, it prefers none.
        max_output_bytes: bound of an output, in the form in which its container sends it.

    Attributes:
        held: the snapshot in force.
        turns: what all queues share.
    """

    def __init__(
        self,
        cache_capacity_bytes: int,
        seed: int = 0,
        watch: Watch | None = None,
        node: str = "",
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        self.cache = ClockCache(cache_capacity_bytes, seed)
        self.held = Holding()
        self.turns = Turns(watch, max_output_bytes)
        self._node = node
        # The queues, by model and version.
        self._queues: dict[str, dict[str, ModelQueue]] = {}
        # Queues of removed versions whose last batches are still in flight.
        self._draining: list[ModelQueue] = []
        # Queues of versions whose record has no type of outputs, and does not say that there is none.
        self._unrecorded: dict[ModelId, ModelQueue] = {}

    def apply(self, told: Snapshot | Difference) -> Difference:
        """Make queues, replicas and current versions match a snapshot, or the snapshot that results from a difference.

        Return the changes. A version that is missing gets no more queries, and is closed once its queries in flight are
        answered. A difference, which the snapshot in force has to fit (``Holding.takes``), costs what it contains; a
        whole snapshot is compared with that in force.
        """
        held = self.held
        difference = held.difference_to(told) if isinstance(told, Snapshot) else told
        names = (*difference.gone_applications, *(each.name for each in difference.applications))
        before = [held.applications[name] for name in names if name in held.applications]
        linked = {link.model for each in (*before, *difference.applications) for link in each.links}
        held.follow(difference)
        gone: Iterable[str] = difference.gone_models
        if not difference.base:  # it is the whole, and there may be queues of a snapshot that could not be applied
            gone = [name for name in self._queues if name not in held.models]
        for name in gone:
            self._apply_model(ModelSnapshot(name, None, ()))
        for model in difference.models:
            self._apply_model(model)
        self._close_drained()
        for name in linked.union(model.name for model in difference.models):
            self._set_slos(name)
        return difference

    def forget(self) -> None:
        """Hold no snapshot in force until the next whole one, since the last difference could not be applied."""
        self.held = Holding()

    def find(self, model: str, version: str | None = None) -> ModelQueue | None:
        """Return the queue of a version, by default of the current version; None if it does not exist."""
        if version is None:
            version = self.current(model)
        queues = self._queues.get(model)
        return None if version is None or queues is None else queues.get(version)

    def current(self, model: str) -> str | None:
        """Return the model's current version, or None."""
        known = self.held.models.get(model)
        return None if known is None else known.current

    def predecessors(self, model: str) -> Mapping[str, str | None]:
        """Map each version of a model that may be queried to the version that was current when it was deployed."""
        return {each.version: each.predecessor for each in self._versions(model)}

    def state_keys(self, model: str) -> Mapping[str, str]:
        """Map a model's versions, as ``MODEL:VERSION``, to their names in learned state, as far as these are told."""
        versions = self._versions(model)
        # A predecessor may have left the snapshot.
        known = [(each.predecessor, each.predecessor_state_key) for each in versions]
        known += [(each.version, each.state_key) for each in versions]
        return {f"{model}:{version}": key for version, key in known if key}

    def _versions(self, model: str) -> Sequence[VersionSnapshot]:
        known = self.held.models.get(model)
        return () if known is None else known.versions

    def queues(self) -> list[ModelQueue]:
        return [queue for queues in self._queues.values() for queue in queues.values()]

    def versions_of(self, model: str) -> list[ModelQueue]:
        return list(self._queues.get(model, {}).values())

    def recent_input(self, model: str) -> tuple[ValueType, bytes] | None:
        """Return a recently answered input with its type: from the current version, else from any other version."""
        current = self.find(model)
        others = self.versions_of(model)
        for queue in [current, *others] if current else others:
            if queue.recent_row is not None:
                return queue.input_type, queue.recent_row
        return None

    def demanded(self) -> tuple[ModelId, ...]:
        """Return the versions that are asleep and were asked lately, or have queries that wait for a replica."""
        unserved, since_s = self.turns.unserved, asyncio.get_running_loop().time() - DEMAND_S
        for id_, asked_at_s in list(unserved.items()):
            queue = self.find(id_.name, id_.version)
            if queue is None or not queue.is_asleep or (asked_at_s <= since_s and not queue.has_waiting):
                del unserved[id_]
        return tuple(unserved)

    def learned(self) -> tuple[tuple[ModelId, str], ...]:
        """Return types of outputs that were learned here and that records lack; empty if there is no type."""
        found = ((id_, queue.output_typing.news) for id_, queue in self._unrecorded.items())
        return tuple((id_, text) for id_, text in found if text is not None)

    async def settle(self) -> None:
        """Wait until every new replica has been dialled once and every removed replica has answered its last batch."""
        waits = [
            replica.link.first_attempt for replica in self.turns.unsettled if not replica.link.first_attempt.done()
        ]
        if waits:
            await asyncio.wait(waits)
        while any(replica.is_draining for replica in self.turns.unsettled):
            await asyncio.sleep(0.005)
        self._close_drained()

    def unlinked(self) -> dict[str, str]:
        """Map the id of each replica that is not linked to the reason."""
        return {
            replica.id: replica.link.last_error or "still dialling"
            for replica in self.turns.unsettled
            if not replica.link.is_linked and not replica.is_draining
        }

    def undrained(self) -> tuple[str, ...]:
        """Return the ids of replicas that still have to answer their last batch."""
        return tuple(replica.id for replica in self.turns.unsettled if replica.is_draining)

    def close(self) -> None:
        for queue in (*self.queues(), *self._draining):
            queue.close()
        self._queues.clear()
        self._draining.clear()

    def _drain(self, queue: ModelQueue) -> None:
        queue.wakes = queue.is_starting = False
        self.turns.unserved.pop(queue.model, None)
        self._unrecorded.pop(queue.model, None)
        queue.set_replicas(())
        self._draining.append(queue)

    def _close_drained(self) -> None:
        for queue in self._draining:
            if not queue.replicas():
                queue.close()
        self._draining = [queue for queue in self._draining if queue.replicas()]

    def _apply_model(self, model: ModelSnapshot) -> None:
        queues = self._queues.setdefault(model.name, {})
        for gone in queues.keys() - {version.version for version in model.versions}:
            self._drain(queues.pop(gone))
        for version in model.versions:
            queue = queues.get(version.version)
            if queue is not None and queue.snapshot.without_replicas != version.without_replicas:
                self._drain(queue)
                queue = None
            if queue is None:
                id_ = ModelId(model.name, version.version)
                queue = queues[version.version] = ModelQueue(id_, version, self.cache, self.turns, self._node)
            queue.wakes, queue.is_starting = version.wakes, version.is_starting
            queue.output_typing.follow(version)
            if version.knows_outputs:
                self._unrecorded.pop(queue.model, None)
            else:
                self._unrecorded[queue.model] = queue
            queue.set_replicas(version.replicas)
        if not queues:
            del self._queues[model.name]

    def _set_slos(self, model: str) -> None:
        """Give each version of a model the smallest SLO of the applications that query it by their links.

        A version that no link leads to can still be named in a query, by any application that links its model. It gets
        the smallest SLO of these applications.
        """
        by_version: dict[str, float] = {}
        smallest_s: float | None = None
        for application in map(self.held.applications.__getitem__, self.held.linking(model)):
            slo_s = application.slo_ms / 1000
            smallest_s = slo_s if smallest_s is None else min(slo_s, smallest_s)
            for link in application.links:
                if link.model == model and (version := link.version or self.current(model)):
                    by_version[version] = min(slo_s, by_version.get(version, slo_s))
        if smallest_s is not None:
            for version, queue in self._queues.get(model, {}).items():
                queue.set_slo(by_version.get(version, smallest_s))
