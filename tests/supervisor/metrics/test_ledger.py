"""The text that is kept and the text made from scratch, after workers and operators have done anything."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from prometheus_client.parser import text_string_to_metric_families

from clipper.api.schemas import Status
from clipper.control.messages import GetReadings
from clipper.control.statistics import (
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    LimitStatistics,
    ModelSelectionStatistics,
    ReplicaStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.metrics.definitions import ReplicaProcess
from clipper.supervisor.metrics.ledger import Existing, Ledger, Shown, WorkerFacts
from clipper.values.types import ModelId
from tests.example_counts import share_of

STATUS = Status("1", 1, "/h", "q", "m", 1.0, True, (), (), 1, 1, {})
NAMES = ("a", "b")
VERSIONS = ("m:1", "m:2")
LIMITS = (("application", "a"), ("key", "k"))
# Readings in an answer.
PART = 2


@dataclass(slots=True)
class Counts:
    """A worker's count of a thing since it was made, its present value, and which thing of its name it is."""

    identity: int
    number: int = 0
    present: int = 0


def histogram(number: int) -> HistogramData:
    return HistogramData((number, number // 2), number / 2)


def application(name: str, counts: Counts) -> ApplicationStatistics:
    number = counts.number
    models = {"m": ModelSelectionStatistics(number, 0, number, number / 4)} if number else {}
    selection = SelectionStatistics(
        models, histogram(number), {"joined": number} if number else {}, 0, 0.0, counts.present, 0, None
    )
    told = {"timeout": number} if number else {}
    mark = hash((number, counts.present))
    return ApplicationStatistics(
        name, number, told, {}, 0, histogram(number), selection, mark=mark, id=f"{name}#{counts.identity}"
    )


def version(key: str, counts: Counts) -> VersionStatistics:
    data, zeros = histogram(counts.number), (0,) * 6
    mark = hash((counts.number, counts.present))
    return VersionStatistics("m", key[2:], counts.present, 0, counts.number, *zeros, data, data, data, mark=mark)


def replicas(key: str, counts: Counts) -> list[ReplicaStatistics]:
    """Two connections: the second is not there while nothing waits."""
    state, number = ("linked", "dialing", "draining")[counts.present % 3], counts.number
    names = [f"{key}#{index}.g{counts.identity}" for index in ((1, 2) if counts.present else (1,))]
    return [ReplicaStatistics(name, "m", key[2:], state, 8, counts.present, number, None) for name in names]


@dataclass(slots=True)
class Worker:
    facts: WorkerFacts
    applications: dict[str, Counts] = field(default_factory=dict)
    versions: dict[str, Counts] = field(default_factory=dict)
    refused: int = 0

    def reading(self, **told: Any) -> WorkerStatistics:
        return WorkerStatistics(
            self.facts.index, 1, 1, 0, {}, **told, cache=CacheStatistics(0, 0, 0, 0),
            limits=(LimitStatistics("key", "k", 1, self.refused),),
        )  # fmt: skip

    def answer(self, asked: GetReadings) -> WorkerStatistics:
        applications: list[ApplicationStatistics] = []
        versions: list[VersionStatistics] = []
        links: list[ReplicaStatistics] = []
        gone: tuple[list[str], list[ModelId]] = [], []
        looked = None
        for place in range(max(len(asked.applications), len(asked.versions))):
            if place < len(asked.applications):
                name = asked.applications[place]
                if name in self.applications:
                    one = application(name, self.applications[name])
                    applications += [one] if one.mark != asked.known[0][place] else []
                elif asked.known[0][place] != -1:
                    gone[0].append(name)
            if place < len(asked.versions):
                id_ = asked.versions[place]
                if str(id_) in self.versions:
                    counts = self.versions[str(id_)]
                    if (of := version(str(id_), counts)).mark != asked.known[1][place]:
                        versions.append(of)
                        links += replicas(str(id_), counts)
                elif asked.known[1][place] != -1:
                    gone[1].append(id_)
            if len(applications) + len(versions) >= PART:
                looked = place + 1
                break
        return self.reading(
            applications=tuple(applications), versions=tuple(versions), replicas=tuple(links), looked=looked,
            gone_applications=tuple(gone[0]), gone_versions=tuple(gone[1]),
        )  # fmt: skip


# A reading of an application, a version, a connection or a limit, and what it has counted.
Told = tuple[Any, int]


class Story(RuleBasedStateMachine):
    """The kept text is the text made from scratch of what was told, and no counter falls."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.workers = {1: Worker(WorkerFacts(0)), 2: Worker(WorkerFacts(1))}
        self.next = 3
        self.applications = {"a": 1}
        self.versions = {"m:1": 1}
        # By key: each worker's last reading, and the readings of workers that have ended and of counts that began anew.
        self.told: dict[tuple[int, str], Told] = {}
        self.former: list[tuple[str, Told]] = []
        # Those in ``told`` that the worker has no more: only the counts stay.
        self.stripped: set[tuple[int, str]] = set()
        self.shown: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def pick(self, data: st.DataObject) -> Worker:
        return self.workers[data.draw(st.sampled_from(sorted(self.workers)))]

    @rule(data=st.data(), more=st.integers(1, 3), name=st.sampled_from(NAMES + VERSIONS))
    def count(self, data: st.DataObject, more: int, name: str) -> None:
        worker = self.pick(data)
        worker.refused += more
        if (known := (worker.applications | worker.versions).get(name)) is not None:
            known.number += more

    @rule(data=st.data(), value=st.integers(0, 3), name=st.sampled_from(NAMES + VERSIONS))
    def change(self, data: st.DataObject, value: int, name: str) -> None:
        worker = self.pick(data)
        if (known := (worker.applications | worker.versions).get(name)) is not None:
            known.present = value

    @rule(data=st.data(), name=st.sampled_from(NAMES + VERSIONS))
    def begin_anew(self, data: st.DataObject, name: str) -> None:
        worker = self.pick(data)
        if (known := (worker.applications | worker.versions).get(name)) is not None:
            known.number = known.present = 0

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        instance = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers[self.next] = Worker(self.workers.pop(instance).facts)
        self.next += 1

    @rule(data=st.data())
    def go_down_or_come_up(self, data: st.DataObject) -> None:
        worker = self.pick(data)
        worker.facts = replace(worker.facts, is_up=not worker.facts.is_up)

    @rule(name=st.sampled_from(NAMES))
    def make_or_remove_application(self, name: str) -> None:
        if self.applications.pop(name, None) is None:
            self.applications[name] = self.next
            self.next += 1

    @rule(key=st.sampled_from(VERSIONS))
    def make_or_remove_version(self, key: str) -> None:
        if self.versions.pop(key, None) is None:
            self.versions[key] = self.next
            self.next += 1

    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        """A worker hears of what exists now."""
        worker = self.pick(data)
        for own, there in ((worker.applications, self.applications), (worker.versions, self.versions)):
            for name in own.keys() | there.keys():
                if name not in there:
                    del own[name]
                elif name not in own or own[name].identity != there[name]:
                    own[name] = Counts(there[name])

    @rule(data=st.data(), names=st.sets(st.sampled_from(NAMES)), is_whole=st.booleans(), by_worker=st.booleans())
    def scrape(self, data: st.DataObject, names: set[str], is_whole: bool, by_worker: bool) -> None:
        there = self.existing({one: worker.facts for one, worker in self.workers.items()})
        self.ledger.follow(there)
        self.forget(there)
        asked = sorted(there.applications.keys() if is_whole else there.applications.keys() & names)
        keys = sorted(there.versions) if is_whole else []
        up = sorted(one for one, worker in self.workers.items() if worker.facts.is_up)
        answered = {}
        for instance in data.draw(st.lists(st.sampled_from(up), unique=True)) if up else ():
            first: int | None = 0
            while first is not None:
                told = self.workers[instance].answer(self.ledger.question(instance, asked[first:], keys[first:]))
                self.ledger.take(instance, told)
                self.note(instance, told)
                answered[instance] = told
                first = None if told.looked is None else first + told.looked
        processes = {name: ReplicaProcess("ready", len(self.former)) for key in keys for name in there.replicas[key]}
        shown = Shown(asked, dict.fromkeys(keys, 2), LIMITS[1:], {}, processes, STATUS if is_whole else None)
        text = self.ledger.text(shown, answered)
        assert text == self.from_scratch(there).text(shown, answered)
        self.compare(text, is_whole=is_whole)
        if by_worker:
            own = self.ledger.text(shown, answered, by_worker=True)
            assert own == self.from_scratch(there).text(shown, answered, by_worker=True)

    def existing(self, workers: dict[int, WorkerFacts]) -> Existing:
        return Existing(
            workers,
            {name: f"{name}#{number}" for name, number in self.applications.items()},
            {key: (ModelId("m", key[2:]), float(number)) for key, number in self.versions.items()},
            {key: [f"{key}#1", f"{key}#2"] for key in self.versions},
            dict.fromkeys(LIMITS[1:], 1),
        )

    # The expected state, kept in the simplest way: all that was ever told.

    def forget(self, there: Existing) -> None:
        current = {f"{key}/{identity}" for key, identity in (self.applications | self.versions).items()} | {"k"}
        self.former = [one for one in self.former if one[0].split("|")[0] in current]
        for instance, key in list(self.told):
            if key.split("|")[0] not in current:
                self.stripped.discard((instance, key))
                del self.told[instance, key]
            elif instance not in there.workers:
                self.stripped.discard((instance, key))
                told = self.told.pop((instance, key))
                self.former += [(key, told)] if told[1] else []
            elif not there.workers[instance].is_up:
                self.stripped.add((instance, key))

    def note(self, instance: int, answer: WorkerStatistics) -> None:
        told: dict[str, Told] = {"k": (answer.limits[0], answer.limits[0].refused)}
        for one in answer.applications:
            if one.id == f"{one.name}#{self.applications[one.name]}":
                told[f"{one.name}/{self.applications[one.name]}"] = one, one.queries
        gone = [f"{name}/{self.applications[name]}" for name in answer.gone_applications]
        of_version = {key: f"{key}/{number}" for key, number in self.versions.items()}
        for of in answer.versions:
            told[of_version[f"m:{of.version}"]] = of, of.outputs
        links = {f"{of_version[one.id[:3]]}|{one.id[:5]}": (one, one.batches) for one in answer.replicas}
        for key in (*(f"m:{of.version}" for of in answer.versions), *map(str, answer.gone_versions)):
            gone += [link for index in (1, 2) if (link := f"{of_version[key]}|{key}#{index}") not in links]
        gone += [of_version[str(id_)] for id_ in answer.gone_versions]
        for key, now in (told | links).items():
            before = self.told.get((instance, key))
            if before is not None and before[1] > now[1]:
                self.former.append((key, before))
            self.told[instance, key] = now
            self.stripped.discard((instance, key))
        self.stripped |= {(instance, key) for key in gone if (instance, key) in self.told}

    def from_scratch(self, there: Existing) -> Ledger:
        """A ledger that hears everything for the first time; each ended worker told one thing, and is down."""
        ended = [told for _, (told, _) in self.former] + [self.told[one][0] for one in sorted(self.stripped)]
        workers = {one: replace(facts, is_up=True) for one, facts in there.workers.items()}
        workers |= {1_000_000 + number: WorkerFacts(1_000_000 + number) for number in range(len(ended))}
        ledger = Ledger()
        ledger.follow(replace(there, workers=workers))
        live: dict[int, list[Any]] = {instance: [] for instance in there.workers}
        for (instance, key), (told, _) in self.told.items():
            if (instance, key) not in self.stripped:
                live[instance].append(told)
        for instance, each in (live | {1_000_000 + number: [told] for number, told in enumerate(ended)}).items():
            kinds = {
                kind: tuple(one for one in each if isinstance(one, type_))
                for kind, type_ in (
                    ("applications", ApplicationStatistics),
                    ("versions", VersionStatistics),
                    ("replicas", ReplicaStatistics),
                    ("limits", LimitStatistics),
                )
            }
            ledger.take(instance, WorkerStatistics(0, 1, 1, 0, {}, **kinds, cache=CacheStatistics(0, 0, 0, 0)))
        down = {one: replace(facts, is_up=one < 1_000_000) for one, facts in workers.items()}
        ledger.follow(replace(there, workers=down))
        return ledger

    def compare(self, text: bytes, *, is_whole: bool) -> None:
        """Check that no counter falls or goes as long as its thing is the same."""
        now, identities = {}, self.applications | self.versions
        for family in text_string_to_metric_families(text.decode()):
            for one in family.samples:
                if family.type in ("counter", "histogram"):
                    name = one.labels.get("application") or f"m:{one.labels.get('version')}"
                    identity = str(identities.get(name, ""))
                    now[one.name, (("of", identity), *sorted(one.labels.items()))] = one.value
        current = {"", *map(str, identities.values())}
        for key, value in self.shown.items():
            if value and key[1][0][1] in current and (is_whole or key in now):
                assert now[key] >= value, key
        self.shown |= now


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=share_of(60), stateful_step_count=40)
