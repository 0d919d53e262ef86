"""Takes a sample every step: readings of all workers and facts in, values into the ring."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from clipper.control.messages import GetStatistics
from clipper.control.statistics import (
    NO_MARK,
    ApplicationStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.history.recent import Recent
from clipper.supervisor.history.ring import SeriesRing, Subject
from clipper.supervisor.history.values import OF_OVERVIEW, Replicas, application_values, version_values
from clipper.supervisor.metrics.totals import added, increase, regret, total
from clipper.values.types import ModelId

STEP_S = 2.0
# An hour.
POINTS = 1800
# 59 MB at most. A hundred applications of three models and as many models take 3,000.
MAX_SERIES = 8192
# Two minutes of the few series that an overview shows: seven for an application with a model, two for a worker.
LATEST_POINTS = 60
MAX_LATEST_SERIES = 8192
# At most this many applications, and as many models, are followed: the first ones.
MAX_FOLLOWED = 1000
# At most this many of each kind are read in a step. If there are more, they take turns, and a value covers all steps
# since the last turn.
PER_STEP = 128
# A worker that is busy with a long task answers in one of the next two steps: until then there are gaps. After that the
# others' counts continue without it. Once it answers, its counts belong to no step, but do count in the last minute:
# queries fail when a machine is too busy.
MAX_MISSED = 2


@dataclass(frozen=True, slots=True)
class ApplicationFacts:
    """An application. ``id`` tells it from an earlier application of the same name."""

    name: str
    id: str
    slo_ms: float


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model. ``versions`` are those that run or should run."""

    name: str
    current: str | None
    versions: Mapping[str, Replicas]


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A worker's process: the processor time that it has used, and its memory now."""

    index: int
    pid: int
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The supervisor's knowledge at a step.

    ``workers`` are the instances of the workers that should answer. ``started`` are those that this supervisor has
    started: their counts begin at their start.
    """

    applications: tuple[ApplicationFacts, ...]
    models: tuple[ModelFacts, ...]
    workers: frozenset[int]
    processes: tuple[ProcessFacts, ...]
    started: frozenset[int] = frozenset()


# Names of applications, and versions.
_Asked = tuple[tuple[str, ...], tuple[ModelId, ...]]


@dataclass(slots=True)
class _Worker:
    """The last readings of a worker, and how many questions in a row it has not answered.

    Attributes:
        lacked: the applications and versions that it did not have when it was last asked.
        is_left_out: whether the counts of the others continued without it.
        question: the question with the marks of these readings.
    """

    applications: dict[str, ApplicationStatistics] = field(default_factory=dict)
    versions: dict[ModelId, VersionStatistics] = field(default_factory=dict)
    lacked: set[str | ModelId] = field(default_factory=set)
    missed: int = 0
    is_left_out: bool = False
    question: tuple[_Asked, GetStatistics] | None = None


@dataclass(frozen=True, slots=True)
class _Counted:
    """The counts of a step. ``begun``: things with an earlier reading; if unread in this step, they counted nothing."""

    applications: Mapping[str, ApplicationStatistics]
    versions: Mapping[ModelId, VersionStatistics]
    begun: Collection[str | ModelId]


class Sampler:
    """Turns readings into series. Time comes in: ``now_s`` of a clock that never goes back.

    The counts of an application or version begin with its first reading, since that one covers an unknown time. But if
    a worker did not have it in an earlier step, the reading covers the time since then; and for a worker that this
    supervisor has started, the time since its start. ``latest`` has the series in ``OF_OVERVIEW``, which always have
    room.
    """

    def __init__(self, now_s: float, points: int = POINTS, max_series: int = MAX_SERIES) -> None:
        self.ring = SeriesRing(points, max_series)
        self.latest = SeriesRing(LATEST_POINTS, MAX_LATEST_SERIES)
        self.recent = Recent(now_s)
        self._began_s = now_s
        self._step = -1
        self._turn = 0
        # The step in which each subject was last read.
        self._read_s: dict[Subject, float] = {}
        self._workers: dict[int, _Worker] = {}
        self._ids: dict[str, str] = {}
        # The applications and versions of the last step.
        self._seen: set[str | ModelId] | None = None
        self._subjects: set[Subject] = set()
        # The facts of the last question.
        self._facts: Facts | None = None
        self._asked: _Asked = ((), ())
        # The applications' losses on feedback since the beginning of their series.
        self._losses: dict[str, SelectionStatistics | None] = {}
        self._processes: dict[int, ProcessFacts] = {}
        self._looked_s = now_s

    def due_s(self) -> float:
        return self._began_s + (self._step + 1) * STEP_S

    def question(self, instance: int, facts: Facts) -> GetStatistics:
        """Make the question to a worker: for the applications and versions whose turn it is, with their marks.

        With 64 workers and a thousand models these are 128,000 marks, so an unchanged question is the same object.
        """
        asked, worker = self._asked_of(facts), self._workers.get(instance, _Worker())
        if worker.question is None or worker.question[0] is not asked:
            names, versions = asked
            marks = (
                tuple(known.mark if (known := worker.applications.get(name)) else NO_MARK for name in names),
                tuple(last.mark if (last := worker.versions.get(id_)) else NO_MARK for id_ in versions),
            )
            worker.question = asked, GetStatistics(names, versions, marks)
        return worker.question[1]

    def _asked_of(self, facts: Facts) -> _Asked:
        """Return the things to ask for: the same object as before, as long as they are the same."""
        if facts is not self._facts:
            turns = _turns(facts)
            names = tuple(one.name for one in islice(facts.applications, self._turn % turns, MAX_FOLLOWED, turns))
            models = islice(facts.models, self._turn % turns, MAX_FOLLOWED, turns)
            asked = names, tuple(ModelId(one.name, version) for one in models for version in one.versions)
            self._facts, self._asked = facts, self._asked if asked == self._asked else asked
        return self._asked

    def take(self, now_s: float, facts: Facts, answers: Mapping[int, WorkerStatistics]) -> None:
        """Take a sample at ``now_s``, when the answers came, by the workers' instances.

        ``facts`` are those of the questions. A second sample within a step does nothing.
        """
        step = int((now_s - self._began_s) / STEP_S)
        if step <= self._step:
            return
        self._step = step
        self.ring.begin(step)
        self.latest.begin(step)
        self._forget_others(facts)
        self._note_what_came(facts, now_s)
        counted, turns = self._counted(facts, answers, now_s), _turns(facts)
        self.recent.add(now_s, counted.applications if counted else {}, counted.versions if counted else {})
        for one in islice(facts.applications, self._turn % turns, MAX_FOLLOWED, turns):
            subject = Subject("application", one.name)
            values, is_busy = self._application(one, counted, now_s - self._read_s.get(subject, self._began_s))
            self._write(subject, values, is_busy, counted is not None, now_s, turns)
        for model in islice(facts.models, self._turn % turns, MAX_FOLLOWED, turns):
            subject = Subject("model", model.name)
            values, is_busy = self._model(model, counted, now_s - self._read_s.get(subject, self._began_s))
            self._write(subject, values, is_busy, counted is not None, now_s, turns)
        self._turn += 1
        self._facts = None
        self._write_processes(facts.processes, now_s)

    def forget_former(self, ids: Mapping[str, str]) -> None:
        """Drop the series of removed applications, even if others have their names by now. ``ids`` are by name.

        When a worker counts for another application of the name, all its counts are new since its last reading.
        """
        for name, id_ in self._ids.items():
            if ids.get(name) != id_:
                subject = Subject("application", name)
                self.ring.drop(subject)
                self.latest.drop(subject)
                self._losses.pop(name, None)
                self.recent.applications.forget(name)
                for worker in self._workers.values():
                    former = worker.applications.pop(name, None)
                    if former is not None and former.id:
                        worker.lacked.add(name)
                    worker.question = None
        self._ids = dict(ids)

    def _note_what_came(self, facts: Facts, now_s: float) -> None:
        """Note the things that no worker had in the last step, except for an application that was recreated under its
        name: see ``forget_former``.
        """
        names = {one.name for one in facts.applications}
        versions = {ModelId(one.name, version) for one in facts.models for version in one.versions}
        if self._seen is not None:
            came = (names | versions) - self._seen
            for key in came:
                subject = Subject("application", key) if isinstance(key, str) else Subject("model", key.name)
                self._read_s.setdefault(subject, now_s - STEP_S)
            for worker in self._workers.values():
                worker.lacked |= came
        self._seen = names | versions

    def _counted(self, facts: Facts, answers: Mapping[int, WorkerStatistics], now_s: float) -> _Counted | None:
        """Add up the counts of all workers since the last whole step; None if this step is not whole."""
        expected = facts.workers
        for gone in self._workers.keys() - expected:
            del self._workers[gone]
        late = [self._workers[one] for one in expected - answers.keys() if one in self._workers]
        for worker in late:
            worker.missed += 1
        if any(worker.missed <= MAX_MISSED for worker in late) or not answers:
            return None
        for worker in late:
            worker.is_left_out = True
        back = {one for one in answers if one in self._workers and self._workers[one].is_left_out}
        if back:
            returned = self._increase(facts, {one: answers[one] for one in back})
            self.recent.add(now_s, returned.applications, returned.versions)
        return self._increase(facts, {one: answer for one, answer in answers.items() if one not in back})

    def _increase(self, facts: Facts, answers: Mapping[int, WorkerStatistics]) -> _Counted:
        names, keys = self._asked_of(facts)
        asked_for: set[str | ModelId] = {*names, *keys}
        begun: set[str | ModelId] = set()
        applications: defaultdict[str, list[ApplicationStatistics]] = defaultdict(list)
        versions: defaultdict[ModelId, list[VersionStatistics]] = defaultdict(list)
        for instance, answer in answers.items():
            worker = self._workers.get(instance)
            if worker is None:
                worker = self._workers[instance] = _Worker(
                    lacked=set(asked_for) if instance in facts.started else set()
                )
            worker.missed, worker.is_left_out = 0, False
            if answer.applications or answer.versions:
                worker.question = None
            begun.update(worker.applications, worker.versions)
            for one in answer.applications:
                before = worker.applications.get(one.name)
                if one.id and one.id != self._ids.get(one.name, one.id):
                    continue  # the worker has not heard of this one yet, and counts for an earlier one of its name
                if before is not None or one.name in worker.lacked:
                    applications[one.name].append(increase(before, one))
                worker.applications[one.name] = one
            for version in answer.versions:
                key = ModelId(version.model, version.version)
                known = worker.versions.get(key)
                if known is not None or key in worker.lacked:
                    versions[key].append(increase(known, version))
                worker.versions[key] = version
            worker.lacked = (worker.lacked | asked_for).difference(worker.applications, worker.versions)
        return _Counted(
            {name: total(each) for name, each in applications.items()},
            {key: total(each) for key, each in versions.items()},
            begun,
        )

    def _write(
        self, subject: Subject, values: dict[str, float], is_busy: bool, is_read: bool, now_s: float, steps: int
    ) -> None:
        self.ring.write(subject, values, is_busy=is_busy, steps=steps)
        shown = {name: values[name] for name in OF_OVERVIEW[subject.kind] if name in values}
        self.latest.write(subject, shown, is_busy=True, steps=steps)
        if is_read:
            self._read_s[subject] = now_s

    def _application(
        self, one: ApplicationFacts, step: _Counted | None, interval_s: float
    ) -> tuple[dict[str, float], bool]:
        """Return an application's values, and whether it was busy."""
        values = {"slo_ms": one.slo_ms}
        counted = None if step is None else step.applications.get(one.name)
        if counted is not None:
            if counted.selection is not None and any(counted.selection.feedback.values()):
                self._losses[one.name] = added(self._losses.get(one.name), counted.selection)
            values |= application_values(counted, interval_s)
        elif step is not None and one.name in step.begun:
            values["rate"] = 0.0
        if "rate" in values and (lost := regret(self._losses.get(one.name))) is not None:
            values["regret"] = lost[1]
        return values, counted is not None

    def _model(self, model: ModelFacts, step: _Counted | None, interval_s: float) -> tuple[dict[str, float], bool]:
        values: dict[str, float] = {
            "replicas_ready": sum(each.ready for each in model.versions.values()),
            "replicas_wanted": sum(each.wanted for each in model.versions.values()),
        }
        found: list[VersionStatistics] = []
        if step is not None:
            ids = {version: ModelId(model.name, version) for version in model.versions}
            limits = {version: min(self.batch_limits(id_).values(), default=0) for version, id_ in ids.items()}
            begun = [version for version in model.versions if ids[version] in step.begun]
            found = [one for version in begun if (one := step.versions.get(ids[version]))]
            if begun:
                limit = limits.get(model.current or "") or min(filter(None, limits.values()), default=0)
                values |= version_values(total(found) if found else None, interval_s, limit)
            # Most models have a previous version that runs without queries.
            if any(one.version != model.current for one in found):
                for version in begun:
                    own = version_values(step.versions.get(ids[version]), interval_s, limits[version])
                    replicas = model.versions[version]
                    own |= {"replicas_ready": replicas.ready, "replicas_wanted": replicas.wanted}
                    values |= {f"{name}.{version}": value for name, value in own.items()}
        return values, bool(found)

    def batch_limits(self, version: ModelId) -> dict[str, int]:
        """Return the smallest batch limit of each linked replica over the workers, by their last readings."""
        limits: dict[str, int] = {}
        for worker in self._workers.values():
            if (known := worker.versions.get(version)) is not None:
                limits |= {id_: min(limit, limits.get(id_, limit)) for id_, limit in known.batch_limits.items()}
        return limits

    def _write_processes(self, processes: Iterable[ProcessFacts], now_s: float) -> None:
        before, self._processes = self._processes, {one.index: one for one in processes}
        for index, one in self._processes.items():
            values: dict[str, float] = {"rss_bytes": one.rss_bytes}
            known = before.get(index)
            if known is not None and known.pid == one.pid:
                values["cpu_share"] = max(one.cpu_s - known.cpu_s, 0.0) / (now_s - self._looked_s)
            self._write(Subject("worker", str(index)), values, True, True, now_s, 1)
        self._looked_s = now_s

    def _forget_others(self, facts: Facts) -> None:
        ids = {one.name: one.id for one in facts.applications}
        versions = {ModelId(one.name, version) for one in facts.models for version in one.versions}
        keys = versions | ids.keys()
        for worker in self._workers.values():
            worker.lacked &= keys
            for name in worker.applications.keys() - ids.keys():
                del worker.applications[name]
            for key in worker.versions.keys() - versions:
                del worker.versions[key]
        subjects = {
            *(Subject("application", name) for name in ids),
            *(Subject("model", one.name) for one in facts.models),
            # A worker that is down will return under its index.
            *(one for one in self._subjects if one.kind == "worker"),
            *(Subject("worker", str(one.index)) for one in facts.processes),
        }
        if subjects == self._subjects and ids == self._ids:
            return
        self.forget_former(ids)
        self.ring.keep_only(subjects)
        self.latest.keep_only(subjects)
        for one in facts.applications[MAX_FOLLOWED:]:
            self.ring.leave_out(Subject("application", one.name))
        for model in facts.models[MAX_FOLLOWED:]:
            self.ring.leave_out(Subject("model", model.name))
        self._read_s = {one: read_s for one, read_s in self._read_s.items() if one in subjects}
        self._subjects = subjects


def _turns(facts: Facts) -> int:
    """Return the number of steps in which everything that is followed has its turn."""
    followed = min(max(len(facts.applications), len(facts.models), 1), MAX_FOLLOWED)
    return ceil(followed / PER_STEP)
