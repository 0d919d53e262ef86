"""All versions that a query worker can ask, by model and version; follows the snapshot."""

import asyncio
from collections.abc import Mapping

from clipper.abstraction.cache.clock import ClockCache
from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.replica import Replica
from clipper.abstraction.turns import Turns
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, Snapshot
from clipper.settings.application import Link
from clipper.types import InputType, ModelId


class Predictor:
    """Owns the cache, whose hash has the seed, and one ``ModelQueue`` a version."""

    def __init__(self, cache_capacity_bytes: int, seed: int = 0) -> None:
        self.cache = ClockCache(cache_capacity_bytes, seed)
        self._turns = Turns()
        self._queues: dict[ModelId, ModelQueue] = {}
        # Of versions that are gone, whose last batches are still to be answered.
        self._leaving: list[ModelQueue] = []
        self._current: dict[str, str | None] = {}
        self._predecessors: dict[str, dict[str, str | None]] = {}

    def apply(self, snapshot: Snapshot) -> None:
        """Make queues, replicas and current versions those of the snapshot.

        What is not in it gets no more queries, and is closed when those that are in flight have been answered.
        """
        wanted: set[ModelId] = set()
        for model in snapshot.models:
            self._current[model.name] = model.current
            wanted |= self._apply_model(model)
        for gone in self._queues.keys() - wanted:
            self._let_go(self._queues.pop(gone))
        self._close_left()
        names = {model.name for model in snapshot.models}
        self._current = {name: version for name, version in self._current.items() if name in names}
        self._predecessors = {
            model.name: {each.version: each.predecessor for each in model.versions} for model in snapshot.models
        }
        self._set_slos(snapshot.applications)

    def find(self, model: str, version: str | None = None) -> ModelQueue | None:
        """The queue of a version, or of the current one if ``version`` is None; None if there is none."""
        if version is None:
            version = self._current.get(model)
        return None if version is None else self._queues.get(ModelId(model, version))

    def current(self, model: str) -> str | None:
        """The model's current version."""
        return self._current.get(model)

    def predecessors(self, model: str) -> Mapping[str, str | None]:
        """Of each version of a model that may be asked, the one that was current when it was deployed."""
        return self._predecessors.get(model, {})

    def end_turn(self) -> None:
        """Have queues give batches out that otherwise do so after the loop has polled again."""
        self._turns.end()

    def queues(self) -> list[ModelQueue]:
        return list(self._queues.values())

    def versions_of(self, model: str) -> list[ModelQueue]:
        return [queue for id_, queue in self._queues.items() if id_.name == model]

    def recent_input(self, model: str) -> tuple[InputType, bytes] | None:
        """An input that was answered not long ago, with its type: by the current version, or else by another."""
        current = self.find(model)
        others = self.versions_of(model)
        for queue in [current, *others] if current else others:
            if queue.recent_row is not None:
                return queue.input_type, queue.recent_row
        return None

    async def settle(self) -> None:
        """Wait until every replica has been dialled once and every removed one has answered its last batch."""
        replicas = self._replicas()
        waits = [replica.link.first_attempt for replica in replicas if not replica.link.first_attempt.done()]
        if waits:
            await asyncio.wait(waits)
        while any(replica.is_draining for replica in self._replicas()):
            await asyncio.sleep(0.005)
        self._close_left()

    def unlinked(self) -> dict[str, str]:
        """Replica id to why it is not linked."""
        return {
            replica.id: replica.link.last_error or "still dialling"
            for replica in self._replicas()
            if not replica.link.is_linked and not replica.is_draining
        }

    def undrained(self) -> tuple[str, ...]:
        return tuple(replica.id for replica in self._replicas() if replica.is_draining)

    def close(self) -> None:
        for queue in (*self._queues.values(), *self._leaving):
            queue.close()
        self._queues.clear()
        self._leaving.clear()

    def _let_go(self, queue: ModelQueue) -> None:
        queue.set_replicas(())
        self._leaving.append(queue)

    def _close_left(self) -> None:
        for queue in self._leaving:
            if not queue.replicas():
                queue.close()
        self._leaving = [queue for queue in self._leaving if queue.replicas()]

    def _apply_model(self, model: ModelSnapshot) -> set[ModelId]:
        applied = set()
        for version in model.versions:
            model_id = ModelId(model.name, version.version)
            applied.add(model_id)
            queue = self._queues.get(model_id)
            if queue is not None and not queue.can_follow(version):
                self._let_go(queue)
                queue = None
            if queue is None:
                queue = self._queues[model_id] = ModelQueue(model_id, version, self.cache, self._turns)
            queue.set_replicas(version.replicas)
        return applied

    def _set_slos(self, applications: tuple[ApplicationSnapshot, ...]) -> None:
        """Give each version the smallest SLO of the applications that ask it.

        A version that none asks by itself may still be named in a query, by any application that links its model.
        """
        by_version: dict[ModelId, float] = {}
        by_model: dict[str, float] = {}
        for application in applications:
            slo_s = application.slo_ms / 1000
            for link in application.links:
                by_model[link.model] = min(slo_s, by_model.get(link.model, slo_s))
                target = _target(link, self._current)
                if target is not None:
                    by_version[target] = min(slo_s, by_version.get(target, slo_s))
        for model_id, queue in self._queues.items():
            smallest_s = by_version.get(model_id, by_model.get(model_id.name))
            if smallest_s is not None:
                queue.set_slo(smallest_s)

    def _replicas(self) -> list[Replica]:
        return [replica for queue in (*self._queues.values(), *self._leaving) for replica in queue.replicas()]


def _target(link: Link, current: dict[str, str | None]) -> ModelId | None:
    version = link.version or current.get(link.model)
    return ModelId(link.model, version) if version else None
