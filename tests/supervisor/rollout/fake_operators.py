"""Operators, and what decides for them by load and by feedback: what they ask for, and in which order."""

from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Put
from clipper.supervisor.rollout import newcomers, rollbacks, wanted
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_records import Records


class Operators:
    """Their requests are in the records at once.

    Attributes:
        requests: how many requests that a version be current there were.
        met: by model, the number of the latest of them that was met.
        asked: by version, the number of its latest.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.requests = 0
        self.met: dict[str, int] = {}
        self.asked: dict[ModelId, int] = {}

    def restore(self, records: Records) -> None:
        """Other records are there from now on, as from a backup."""
        self.records = records
        self.met.clear()
        # By the order that is stored; of what is current already nothing is open.
        open_ = [one for one in records.versions.values() if one.promotion is not None]
        self.asked = {one.id: self.requests + (one.promotion or 0) for one in open_}
        self.requests += max([one.promotion or 0 for one in open_], default=0)

    def note_current(self, id_: ModelId) -> None:
        """It has become current, which must not undo a later request."""
        number = self.asked[id_]
        assert number >= self.met.get(id_.name, 0), f"{id_} was asked for before the one that is current"
        self.met[id_.name] = number

    def deploy(self, model: str, version: str, target: str, artifact: str, *, current: bool, replicas: int) -> None:
        id_ = ModelId(model, version)
        before = self.records.versions.get(id_)
        if before is not None and before.state != "failed":
            return
        self.records.models.setdefault(model, ModelRecord(model))
        self.requests += 1
        promotion = self._next_promotion(model) if current else None
        self.records.versions[id_] = VersionRecord(
            model,
            version,
            VersionSpec(artifact, "import", target),
            Batching(),
            True,
            replicas,
            created_at=float(self.requests),
            kept=not current,
            promotion=promotion,
            is_new=True,
        )
        self.asked.pop(id_, None)
        if current:
            self.asked[id_] = self.requests

    def rollback(self, id_: ModelId) -> None:
        record = self.records.versions.get(id_)
        if record is None:
            return
        self.requests += 1
        self.asked[id_] = self.requests
        if self.records.models[id_.name].current == id_.version:
            self.met[id_.name] = self.requests
            for waiting in wanted.cancelled(self.records, id_.name):
                self.records.versions[waiting.id] = waiting
            return
        state = "starting" if record.state == "failed" else record.state
        promotion = self._next_promotion(id_.name)
        # One that is asleep wakes first.
        wanted_ = max(record.replicas_wanted, 1)
        self.records.versions[id_] = replace(
            record, promotion=promotion, state=state, replicas_wanted=wanted_, last_error=None, is_new=False
        )

    def rollback_to_previous(self, model: str) -> None:
        """As an operator who names no version. It is refused where there is none to return to."""
        known = self.records.models.get(model)
        version = None if known is None else rollbacks.target(self.records, known)
        if known is not None and version is not None:
            record = self.records.versions[ModelId(model, version)]
            assert version != known.current, f"a rollback of {model} changes nothing"
            assert record.stopped is None and record.state != "failed", f"a rollback returns to {record}"
            self.rollback(record.id)

    def let_sleep(self, id_: ModelId, *, most: int) -> None:
        """From now on it may have no replica; until nobody asks it, it has as many as it has."""
        record = self.records.versions.get(id_)
        if record is not None:
            scaling = ReplicaRange(0, most)
            self.records.versions[id_] = replace(
                record, scaling=scaling, replicas_wanted=min(record.replicas_wanted, most)
            )

    def fall_asleep(self, id_: ModelId) -> None:
        """Nobody has asked it: as the scaler decides, which leaves those alone that are to become current."""
        record = self.records.versions.get(id_)
        if record is not None and record.scaling and record.state == "ready" and record.promotion is None:
            self.records.versions[id_] = replace(record, replicas_wanted=0)

    def scale(self, id_: ModelId, replicas: int) -> None:
        if id_ in self.records.versions:
            self.records.versions[id_] = replace(self.records.versions[id_], replicas_wanted=replicas, scaling=None)

    def remove(self, id_: ModelId) -> None:
        record = self.records.versions.get(id_)
        if record is None or self._is_pinned(id_) or self.records.models[id_.name].current == id_.version:
            return
        model = self.records.models[id_.name]
        if model.previous == id_.version:
            self.records.models[id_.name] = replace(model, previous=None)
        del self.records.versions[id_]
        self.asked.pop(id_, None)
        self._end_ramps()

    def remove_model(self, model: str) -> None:
        if model in self.records.models and not any(self.records.linking(model)):
            del self.records.models[model]
            self.met.pop(model, None)
            self.asked = {id_: number for id_, number in self.asked.items() if id_.name != model}
            self.records.versions = {i: one for i, one in self.records.versions.items() if i.name != model}

    def pin(self, id_: ModelId) -> None:
        if id_ in self.records.versions:
            application = ApplicationRecord("app", "float64[2]", 20.0, links=(Link(id_.name, id_.version),))
            self.records.applications["app"] = application

    def unpin(self) -> None:
        self.records.applications.pop("app", None)

    def learn_by(self, model: str) -> None:
        """An application follows a model by a policy that learns, so that what is deployed is ramped."""
        if model in self.records.models:
            selection = Selection("thompson")
            application = ApplicationRecord("learner", "float64[2]", 20.0, selection=selection, links=(Link(model),))
            self.records.applications["learner"] = application

    def follow(self, model: str) -> None:
        """An application follows a model by a policy that does not learn, so that what is deployed is watched."""
        if model in self.records.models:
            application = ApplicationRecord("follower", "float64[2]", 20.0, links=(Link(model),))
            self.records.applications["follower"] = application

    def end_learning(self) -> None:
        self.records.applications.pop("learner", None)
        self.records.applications.pop("follower", None)

    def judge_newcomers(self, *, is_good: bool) -> None:
        """As feedback and failures say: it is through, or it is stopped, and its model rolled back where possible."""
        for name in ("learner", "follower"):
            known = self.records.applications.get(name)
            for one in () if known is None else (*known.newcomers, *known.watched):
                application = self.records.applications[name]
                if one.stopped is None and one in (*application.newcomers, *application.watched):
                    self._judge(application, one, is_good=is_good)

    def _judge(self, application: ApplicationRecord, one: Newcomer, *, is_good: bool) -> None:
        was = self.records.models[one.model].current
        if is_good and one in application.watched:
            changes = [Put(newcomers.unwatched(application, one))]
        elif is_good:
            ended = EndedRamp(one.model, one.version, 0.0, 200, 3800, 0.1, 0.1)
            changes = rollbacks.let_through(self.records, application, one, ended)
        else:
            changes = rollbacks.stop(self.records, application, one, "it lost more") or []
        self.records.put(changes)
        if self.records.models[one.model].current != was:
            # Nobody has asked for what is current now, and what was asked for before it is over.
            self.asked = {id_: number for id_, number in self.asked.items() if id_.name != one.model}

    def _end_ramps(self) -> None:
        current = {model.name: model.current for model in self.records.models.values()}
        for name, application in self.records.applications.items():
            changed = newcomers.after_other_change(application, current.get, self.records.versions.__contains__)
            self.records.applications[name] = changed

    def last_asked(self) -> list[tuple[tuple[str, str], int]]:
        """Of each model, the version that was last asked to be current, if it exists; and the number of the request."""
        last: dict[str, tuple[int, ModelId]] = {}
        for id_, number in self.asked.items():
            last[id_.name] = max(last.get(id_.name, (0, id_)), (number, id_), key=lambda one: one[0])
        return [((id_.name, id_.version), number) for number, id_ in last.values() if id_ in self.records.versions]

    def _is_pinned(self, id_: ModelId) -> bool:
        return any(pin == id_.version for _, pin in self.records.linking(id_.name))

    def _next_promotion(self, model: str) -> int:
        promotions = [one.promotion or 0 for one in self.records.versions.values() if one.model == model]
        return max(promotions, default=0) + 1
