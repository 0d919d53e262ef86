"""The queues of all versions that a query worker can query; follows the snapshot."""

import asyncio
from collections.abc import Mapping

from clipper.abstraction.cache.clock import ClockCache
from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.replica import Replica
from clipper.abstraction.turns import Turns
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, Snapshot
from clipper.telemetry.watch import Watch
from clipper.types import InputType, ModelId


class Predictor:
    """Owns the prediction cache and one ``ModelQueue`` for each version.

    Args:
        cache_capacity_bytes: bound of the cache; 0 keeps no outputs.
        seed: seed of the cache's hash; see ``ClockCache``.
        watch: see ``Turns``.
    """

    def __init__(self, cache_capacity_bytes: int, seed: int = 0, watch: Watch | None = None) -> None:
        self.cache = ClockCache(cache_capacity_bytes, seed)
        self._turns = Turns(watch)
        self._queues: dict[ModelId, ModelQueue] = {}
        # Queues of removed versions whose last batches are still in flight.
        self._draining: list[ModelQueue] = []
        self._current: dict[str, str | None] = {}
        self._predecessors: dict[str, dict[str, str | None]] = {}

    def apply(self, snapshot: Snapshot) -> None:
        """Make queues, replicas and current versions match the snapshot.

        A version that is missing from it gets no more queries, and is closed once its queries in flight are answered.
        """
        wanted: set[ModelId] = set()
        for model in snapshot.models:
            self._current[model.name] = model.current
            wanted |= self._apply_model(model)
        for gone in self._queues.keys() - wanted:
            self._drain(self._queues.pop(gone))
        self._close_drained()
        names = {model.name for model in snapshot.models}
        self._current = {name: version for name, version in self._current.items() if name in names}
        self._predecessors = {
            model.name: {each.version: each.predecessor for each in model.versions} for model in snapshot.models
        }
        self._set_slos(snapshot.applications)

    def find(self, model: str, version: str | None = None) -> ModelQueue | None:
        """Return the queue of a version, by default of the current one; None if that version does not exist."""
        if version is None:
            version = self._current.get(model)
        return None if version is None else self._queues.get(ModelId(model, version))

    def current(self, model: str) -> str | None:
        """Return the model's current version, or None."""
        return self._current.get(model)

    def predecessors(self, model: str) -> Mapping[str, str | None]:
        """Map each version of a model that may be queried to the version that was current when it was deployed."""
        return self._predecessors.get(model, {})

    def end_turn(self) -> None:
        """Let the queues send the batches now that they would otherwise send after the loop has polled again."""
        self._turns.end()

    def queues(self) -> list[ModelQueue]:
        return list(self._queues.values())

    def versions_of(self, model: str) -> list[ModelQueue]:
        return [queue for id_, queue in self._queues.items() if id_.name == model]

    def recent_input(self, model: str) -> tuple[InputType, bytes] | None:
        """Return a recently answered input with its type: of the current version, else of any other version."""
        current = self.find(model)
        others = self.versions_of(model)
        for queue in [current, *others] if current else others:
            if queue.recent_row is not None:
                return queue.input_type, queue.recent_row
        return None

    async def settle(self) -> None:
        """Wait until every new replica has been dialled once and every removed one has answered its last batch."""
        replicas = self._replicas()
        waits = [replica.link.first_attempt for replica in replicas if not replica.link.first_attempt.done()]
        if waits:
            await asyncio.wait(waits)
        while any(replica.is_draining for replica in self._replicas()):
            await asyncio.sleep(0.005)
        self._close_drained()

    def unlinked(self) -> dict[str, str]:
        """Map the id of each replica that is not linked to the reason."""
        return {
            replica.id: replica.link.last_error or "still dialling"
            for replica in self._replicas()
            if not replica.link.is_linked and not replica.is_draining
        }

    def undrained(self) -> tuple[str, ...]:
        """Return the ids of replicas that still have to answer their last batch."""
        return tuple(replica.id for replica in self._replicas() if replica.is_draining)

    def close(self) -> None:
        for queue in (*self._queues.values(), *self._draining):
            queue.close()
        self._queues.clear()
        self._draining.clear()

    def _drain(self, queue: ModelQueue) -> None:
        queue.set_replicas(())
        self._draining.append(queue)

    def _close_drained(self) -> None:
        for queue in self._draining:
            if not queue.replicas():
                queue.close()
        self._draining = [queue for queue in self._draining if queue.replicas()]

    def _apply_model(self, model: ModelSnapshot) -> set[ModelId]:
        applied = set()
        for version in model.versions:
            model_id = ModelId(model.name, version.version)
            applied.add(model_id)
            queue = self._queues.get(model_id)
            if queue is not None and not queue.can_follow(version):
                self._drain(queue)
                queue = None
            if queue is None:
                queue = self._queues[model_id] = ModelQueue(model_id, version, self.cache, self._turns)
            queue.set_replicas(version.replicas)
        return applied

    def _set_slos(self, applications: tuple[ApplicationSnapshot, ...]) -> None:
        """Give each version the smallest SLO of the applications that query it by their links.

        A version that no link leads to can still be named in a query, by any application that links its model: it
        gets the smallest SLO of these applications.
        """
        by_version: dict[ModelId, float] = {}
        by_model: dict[str, float] = {}
        for application in applications:
            slo_s = application.slo_ms / 1000
            for link in application.links:
                by_model[link.model] = min(slo_s, by_model.get(link.model, slo_s))
                version = link.version or self._current.get(link.model)
                if version:
                    target = ModelId(link.model, version)
                    by_version[target] = min(slo_s, by_version.get(target, slo_s))
        for model_id, queue in self._queues.items():
            smallest_s = by_version.get(model_id, by_model.get(model_id.name))
            if smallest_s is not None:
                queue.set_slo(smallest_s)

    def _replicas(self) -> list[Replica]:
        return [replica for queue in (*self._queues.values(), *self._draining) for replica in queue.replicas()]
