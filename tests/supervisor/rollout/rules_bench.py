"""Shared by tests of the rules: facts to be changed between looks, and the instructions that follow."""

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from clipper.control.snapshot import ApplicationSnapshot, Peer, ReplicaAddress
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.rollout.facts import Facts, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.instructions import Commit, Instruction, Note, Push, Stop
from clipper.supervisor.rollout.rollout import Rollout
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_records import Records, records_of

SPEC, OTHER = VersionSpec("a", "import", "m:f"), VersionSpec("b", "import", "m:f")
ONE, TWO = ModelId("m", "1"), ModelId("m", "2")
EPOCH = 7


def version(name: str = "1", **fields: Any) -> VersionRecord:
    return VersionRecord("m", name, **{"spec": SPEC, "batching": Batching(), "cache": True, "replicas_wanted": 1,
                                       "created_at": float(name), "input_type": "float64[2]", **fields})  # fmt: skip


def slot(index: int = 1, name: str = "1", phase: Any = "ready", **fields: Any) -> SlotFacts:
    id_ = f"m:{name}#{index}.g1"
    given = {"spec": SPEC, "id": id_, "address": ReplicaAddress(id_, f"unix:{id_}"), "input_type": "float64[2]"}
    return SlotFacts(Slot("m", name, index), phase, **(given | fields))


def dead(index: int = 1, name: str = "1", **fields: Any) -> SlotFacts:
    return slot(index, name, "dead", id="", address=None, input_type=None, **fields)


def worker(index: int = 0, **fields: Any) -> WorkerFacts:
    return WorkerFacts(index, **{"phase": "ready", "peer": Peer(index, f"w{index}"), **fields})


@dataclass
class Bench:
    """A rollout, and facts to be changed between its looks."""

    rollout: Rollout
    records: Records
    slots: tuple[SlotFacts, ...] = ()
    workers: tuple[WorkerFacts, ...] = (worker(),)
    now_s: float = 100.0
    can_commit_at_s: float = float("-inf")
    applications: tuple[ApplicationSnapshot, ...] = ()

    def look(self) -> list[Instruction]:
        facts = Facts(self.now_s, self.records, self.applications, self.slots, self.workers, self.can_commit_at_s)
        return self.rollout.look(facts)

    def applied(self, **fields: Any) -> "Bench":
        """All workers serve by the newest snapshot."""
        self.workers = tuple(
            worker(one.index, generation=self.rollout.snapshots.generation, is_outdated=one.is_outdated,
                   is_spare=one.is_spare, **fields) for one in self.workers
        )  # fmt: skip
        return self

    def push(self) -> Push:
        (push,) = self.look()
        assert isinstance(push, Push)
        return push

    def told(self, **fields: Any) -> "Bench":
        self.push()
        return self.applied(**fields)

    def record(self, name: str = "1", **fields: Any) -> None:
        id_ = ModelId("m", name)
        self.records.versions[id_] = replace(self.records.versions[id_], **fields)


def bench(*records: Any, slots: tuple[SlotFacts, ...] = (), workers: tuple[WorkerFacts, ...] = (worker(),)) -> Bench:
    return Bench(Rollout(EPOCH), records_of(*records), slots, workers)


def noted(instructions: list[Instruction]) -> VersionRecord:
    (note,) = instructions
    assert isinstance(note, Note), note
    return note.record


def committed(instructions: list[Instruction]) -> list[Any]:
    (commit,) = instructions
    assert isinstance(commit, Commit), commit
    return [change.record for change in commit.changes]


STARTING = version(state="starting", promotion=1, input_type=None)
CURRENT = (ModelRecord("m", current="1"), version(state="ready"))


def linked_start(**fields: Any) -> Bench:
    """A version whose only replica is up and known to the worker."""
    one = bench(ModelRecord("m"), STARTING, slots=(slot(),))
    noted_record = noted(one.look())
    one.records.versions[ONE] = noted_record
    return one.told(**fields)


def leaving(*workers: WorkerFacts) -> Bench:
    """The current version, whose second replica is on its way out."""
    one = bench(*CURRENT, slots=(slot(), slot(2, phase="stopping")), workers=workers)
    one.push()
    return one


STOP = [Stop(Slot("m", "1", 2), "no worker has a batch left there")]
