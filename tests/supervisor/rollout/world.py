"""A world for the rollout to act on: records, containers, workers and messages, in memory and by a clock of its own.

Whatever the rollout has done is held against the world as it really is, not as it is known: what a worker serves by,
whether a replica has a batch, which request came last.
"""

from msgspec.structs import replace

from clipper.control.snapshot import Peer, ReplicaAddress, Snapshot
from clipper.settings.version import VersionSpec
from clipper.supervisor.history.story import Story
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS, Slot
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.rollout import wanted
from clipper.supervisor.rollout.facts import Facts, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.instructions import (
    Commit,
    DrainWorker,
    Forget,
    Instruction,
    Note,
    Push,
    Retire,
    Start,
    StartSpare,
    Stop,
    WakeAt,
)
from clipper.supervisor.rollout.rollout import Rollout
from clipper.supervisor.workers.settings import WorkerSettings
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_operators import Operators
from tests.supervisor.rollout.fake_processes import (
    BATCH_S,
    CRASH_AFTER_S,
    DRAIN_S,
    HANG_S,
    SLOW_START_S,
    START_S,
    START_TIMEOUT_S,
    STOP_S,
    UNDIALABLE_S,
    WORKERS,
    FakeSlot,
    FakeWorker,
)
from tests.supervisor.rollout.fake_records import Records
from tests.supervisor.rollout.invariants import validate


class World:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.operators = Operators(Records())
        self.epoch = 1
        self.build = 1
        self.slots: dict[Slot, FakeSlot] = {}
        self.numbers = 0
        self.instances = WORKERS
        self.settings = WorkerSettings("127.0.0.1", 1337, 1000, store_digest="store", knows_keys=True)
        self.workers = [FakeWorker(index, self.build, index, self.settings, back_at_s=0.3) for index in range(WORKERS)]
        self.registry_fails = False
        self.can_commit_at_s = float("-inf")
        self.rollout = Rollout(self.epoch)
        self.story = Story()
        self.wake_at_s = 0.0
        # As the shell has it: what has not changed is the same object, or has the same number.
        self.revision = self.fleet_revision = 0
        self._records_told = Records()
        self._slots_told: tuple[SlotFacts, ...] = ()
        self.pushed: list[int] = []

    @property
    def records(self) -> Records:
        return self.operators.records

    # The supervisor's facts

    def facts(self) -> Facts:
        told, now = self._records_told, self.records
        if now != told:
            self._records_told = now.copy()
            self.revision += 1
            self.fleet_revision += (now.models, now.versions) != (told.models, told.versions)
        known = {one.slot: one for one in self._slots_told}
        found = [self._slot_facts(one) for _, one in sorted(self.slots.items())]
        slots = tuple(known[one.slot] if known.get(one.slot) == one else one for one in found)
        if list(map(id, slots)) != list(map(id, self._slots_told)):
            self._slots_told = slots
        return Facts(
            self.now_s,
            self.records,
            (),
            self._slots_told,
            tuple(self._worker_facts(one) for one in self.workers),
            self.can_commit_at_s,
            self.revision,
            self.fleet_revision,
        )

    def _slot_facts(self, one: FakeSlot) -> SlotFacts:
        address = ReplicaAddress(one.id, f"unix:{one.id}") if one.phase in ("ready", "stopping") and one.id else None
        return SlotFacts(
            one.slot,
            one.phase,
            one.spec,
            one.id,
            address,
            "float64[2]" if one.phase == "ready" else None,
            start_failure=one.start_failure,
            last_error=one.last_error,
            history=one.history,
            is_outdated=one.phase != "dead" and one.build != self.build,
        )

    def _worker_facts(self, one: FakeWorker) -> WorkerFacts:
        return WorkerFacts(
            one.index,
            one.phase,
            Peer(one.instance, f"w{one.instance}") if one.has_process else None,
            one.generation,
            one.found_generation,
            one.unlinked,
            one.undrained,
            is_spare=not one.node and one.index == WORKERS,
            is_outdated=one.has_process and one.note.is_outdated(self.settings, str(self.build)),
            node=one.node,
        )

    # The supervisor's actions

    def look(self) -> None:
        """A pass, as the shell makes one."""
        for _ in range(100):
            facts = self.facts()
            instructions = self.rollout.look(facts)
            self.story.follow(self.now_s, facts)
            self.story.record(self.now_s, instructions)
            for one in instructions:
                self.carry_out(one)
            if all(isinstance(one, WakeAt) for one in instructions):
                self.wake_at_s = min(
                    (one.at_s for one in instructions if isinstance(one, WakeAt)), default=float("inf")
                )
                assert self.wake_at_s > self.now_s, "it wakes itself without end"
                validate(self.rollout, self.facts())
                return
        raise AssertionError(f"there is no end of what is to do: {instructions}")

    def carry_out(self, one: Instruction) -> None:
        match one:
            case Note(record):
                assert record.id in self.records.versions
                self.records.versions[record.id] = record
            case Commit():
                self._commit(one)
            case Push(snapshot):
                self._push(snapshot)
            case Start(slot, spec):
                self._start(slot, spec)
            case Retire(slot, why):
                self._retire(self.slots[slot], why)
            case Stop(slot):
                self._stop(self.slots[slot])
            case Forget(slot):
                assert self.slots[slot].phase == "dead"
                del self.slots[slot]
            case StartSpare():
                assert all(worker.index != WORKERS for worker in self.workers), "there is a spare already"
                self.workers.append(self._new_worker(WORKERS))
            case DrainWorker(index):
                self._drain(index)
            case WakeAt():
                pass

    def _commit(self, one: Commit) -> None:
        if self.registry_fails:
            self.can_commit_at_s = self.now_s + 5.0
            return
        before = self.records.versions[one.id]
        self._check_can_be_ready(before)
        model_before = self.records.models[before.model]
        unproven = {
            newcomer.version
            for application in self.records.applications.values()
            for newcomer in application.newcomers
            if newcomer.model == before.model and newcomer.promoted
        }
        self.records.put(one.changes)
        if before.promotion is not None:
            model = self.records.models[before.model]
            assert model.current == before.version
            assert model == model_before or model.previous not in unproven, f"{model.previous} is still ramped"
            self.operators.note_current(before.id)

    def _check_can_be_ready(self, record: VersionRecord) -> None:
        ready = {one.id for one in self.slots.values() if one.phase == "ready" and one.slot.model_id == record.id}
        needed = wanted.running(self.records)[record.id] if record.state == "starting" else 1
        assert len(ready) >= needed, f"{record.id} becomes ready with {len(ready)} of {needed} replicas"
        for slot in self.slots.values():
            if slot.id in ready:
                assert slot.spec == record.spec
        for worker in self.workers:
            if worker.phase in ("starting", "ready"):
                assert ready <= worker.asks, f"{record.id} becomes current and worker {worker.index} was not told"
                known = ready - worker.unlinked.keys()
                assert known == ready, f"{record.id} becomes current and worker {worker.index} has not linked it"

    def _push(self, snapshot: Snapshot) -> None:
        assert snapshot.generation > max(self.pushed, default=0)
        self.pushed.append(snapshot.generation)
        for model in snapshot.models:
            for version in model.versions:
                for replica in version.replicas:
                    slot = next(one for one in self.slots.values() if one.id == replica.id)
                    record = self.records.versions[ModelId(model.name, version.version)]
                    assert slot.phase == "ready" and slot.spec == record.spec, f"workers are told of {replica.id}"
        for worker in self.workers:
            worker.push(snapshot)

    def _start(self, slot: Slot, spec: VersionSpec) -> None:
        record = self.records.versions[slot.model_id]
        one = self.slots.setdefault(slot, FakeSlot(slot, spec))
        assert one.phase == "dead" and spec == record.spec
        assert slot.index <= record.replicas_wanted + 1
        self.numbers += 1
        one.spec, one.phase, one.id, one.build = spec, "starting", f"{slot}.g{self.numbers}", self.build
        one.start_failure = None
        delays = {"slow": SLOW_START_S, "hangs": START_TIMEOUT_S}
        one.due_s = self.now_s + delays.get(spec.target, START_S)
        one.dialable_at_s = self.now_s + {"undialable": UNDIALABLE_S, "deaf": float("inf")}.get(spec.target, 0.0)

    def _retire(self, one: FakeSlot, why: str) -> None:
        assert one.phase in ("starting", "ready")
        record = self.records.versions.get(one.slot.model_id)
        if record is not None and record.spec == one.spec:
            newest = self.rollout.snapshots.generation
            for worker in self.workers:
                if worker.phase in ("starting", "ready"):
                    assert worker.serves.generation == newest, (
                        f"{one.id} is retired, and worker {worker.index} is behind"
                    )
        one.phase, one.retired_at_s = "stopping", self.now_s
        if "Clipper" in why and record is not None:
            ready = sum(each.phase == "ready" for each in self.slots.values() if each.slot.model_id == record.id)
            assert ready >= wanted.running(self.records)[record.id], f"{one.id} is replaced, and {ready} are left"

    def _stop(self, one: FakeSlot) -> None:
        assert one.phase == "stopping"
        if self.now_s - one.retired_at_s < wanted.MIN_BATCH_TIMEOUT_S:
            for worker in self.workers:
                if worker.has_process:
                    assert one.id not in worker.asks, f"{one.id} is stopped, and worker {worker.index} asks it"
                    assert one.id not in worker.busy, f"{one.id} is stopped with a batch of worker {worker.index}"
        one.due_s = self.now_s + STOP_S

    def _drain(self, index: int) -> None:
        (worker,) = (one for one in self.workers if one.index == index)
        newest = self.rollout.snapshots.generation
        others = [one for one in self.workers if one is not worker and one.phase != "lost"]
        assert all(one.phase == "ready" and one.serves.generation == newest for one in others)
        assert worker.node or len(others) >= WORKERS, "fewer workers are left than there are to be"
        worker.phase, worker.back_at_s = "draining", self.now_s + DRAIN_S

    def _new_worker(self, index: int, node: str = "") -> FakeWorker:
        self.instances += 1
        newest = self.workers[0].newest if self.workers else None
        return FakeWorker(
            index, self.build, self.instances, self.settings, newest=newest, back_at_s=self.now_s + 0.3, node=node
        )

    # The clients' actions

    def ask_sleeper(self, id_: ModelId) -> None:
        """A query comes to a worker. If it serves the version as one that is asleep, the scaler hears of it."""
        record = self.records.versions.get(id_)
        if record is None or record.replicas_wanted or record.state != "ready" or record.promotion is not None:
            return
        told = [
            one
            for worker in self.workers
            if worker.has_process
            for model in worker.serves.models
            for one in model.versions
            if (model.name, one.version) == (id_.name, id_.version)
        ]
        if any(one.wakes and not one.replicas for one in told):
            self.records.versions[id_] = replace(record, replicas_wanted=1)

    # The processes' own events

    def advance(self, to_s: float) -> None:
        """Let time pass; slots and workers do what is due."""
        self.now_s = max(self.now_s, to_s)
        for slot, one in sorted(self.slots.items()):
            if one.due_s <= self.now_s:
                self._slot_is_due(slot, one)
        for position, worker in enumerate(list(self.workers)):
            worker.busy = {id_: until_s for id_, until_s in worker.busy.items() if until_s > self.now_s}
            if worker.hangs_since_s is not None and self.now_s - worker.hangs_since_s > HANG_S:
                self.kill_worker(position)
            if worker.back_at_s <= self.now_s:
                self._worker_is_due(position, worker)

    def _slot_is_due(self, slot: Slot, one: FakeSlot) -> None:
        one.due_s = float("inf")
        if one.phase == "stopping":
            del self.slots[slot]
        elif one.phase == "starting" and one.spec.target in ("broken", "hangs"):
            one.die(self.now_s, f"{one.spec.target}")
        elif one.phase == "starting":
            one.phase, one.up_s = "ready", self.now_s
            if one.spec.target == "crashes":
                one.due_s = self.now_s + CRASH_AFTER_S
        elif one.phase == "ready":
            one.die(self.now_s, "crashed")

    def _worker_is_due(self, position: int, worker: FakeWorker) -> None:
        worker.back_at_s = float("inf")
        match worker.phase:
            case "draining" if worker.index == WORKERS and not worker.node:
                self.workers.remove(worker)
            case "draining" | "backing_off":
                self.workers[position] = self._new_worker(worker.index, worker.node)
            case "starting":
                self.dial(worker)

    def dial(self, worker: FakeWorker) -> None:
        worker.phase, worker.found_generation = "ready", worker.serves.generation
        worker.send()

    def deliver(self, worker: FakeWorker) -> None:
        """It takes the next snapshot that it was sent, unless it hangs; and its answer is on the way."""
        if worker.hangs_since_s is not None or not worker.inbox or not worker.has_process:
            return
        if worker.cut_since_s is not None:
            return
        snapshot = worker.inbox.popleft()
        # There are always queries: each replica that it asks has a batch of it.
        worker.busy |= dict.fromkeys(worker.asks, self.now_s + BATCH_S)
        if snapshot.generation >= worker.serves.generation:
            worker.serves = snapshot
        self._answer(worker)
        worker.send()

    def _answer(self, worker: FakeWorker) -> None:
        dialable = {
            one.id for one in self.slots.values() if one.dialable_at_s <= self.now_s and one.phase != "starting"
        }
        unlinked = dict.fromkeys(worker.asks - dialable, "refused")
        worker.replies.append((worker.serves.generation, unlinked, tuple(sorted(worker.busy.keys() - worker.asks))))

    def hear(self, worker: FakeWorker) -> None:
        """The supervisor gets its next answer."""
        if worker.replies and worker.phase == "ready" and worker.cut_since_s is None:
            generation, unlinked, undrained = worker.replies.popleft()
            if worker.generation is None or generation >= worker.generation:
                worker.generation, worker.unlinked, worker.undrained = generation, unlinked, undrained

    def kill_worker(self, position: int) -> None:
        worker = self.workers[position]
        if worker.phase in ("starting", "ready"):
            self.workers[position] = FakeWorker(
                worker.index,
                self.build,
                worker.instance,
                self.settings,
                "backing_off",
                newest=worker.newest,
                back_at_s=self.now_s + 1.0,
                node=worker.node,
            )

    def restart(
        self,
        *,
        records: Records | None = None,
        epoch: int | None = None,
        upgrade: bool = False,
        settings: WorkerSettings | None = None,
    ) -> None:
        """The supervisor is killed, and another takes over: its own messages may still be under way."""
        self.settings = settings or self.settings
        if records is not None:
            self.operators.restore(records)
        self.build += upgrade
        self.epoch = (self.epoch if epoch is None else epoch) + 1
        self.rollout, self.pushed = Rollout(self.epoch), []
        self.can_commit_at_s, self.wake_at_s = float("-inf"), self.now_s
        for slot, one in list(self.slots.items()):
            if one.phase == "dead" or not wanted.goes_on(self.records, wanted.running(self.records), slot, one.spec):
                del self.slots[slot]
            else:
                if one.phase == "stopping":
                    one.phase, one.due_s = "ready", float("inf")
                one.history, one.last_error, one.start_failure = NO_DEATHS, None, None
                record = self.records.versions[slot.model_id]
                assert one.spec == record.spec, f"{one.id} goes on for a version that it is not of"
                assert record.state != "failed" and slot.index <= record.replicas_wanted, f"nobody wants {one.id}"
        for position, worker in enumerate(self.workers):
            goes_on = worker.note.goes_on(self.settings, WORKERS)
            if not worker.has_process or worker.phase == "draining" or not goes_on:
                self.workers[position] = self._new_worker(worker.index, worker.node)
                self.workers[position].newest = None
                continue
            reached = (worker.settings.host, worker.settings.port, worker.settings.store_digest)
            assert reached == (self.settings.host, self.settings.port, self.settings.store_digest), "it is elsewhere"
            worker.phase, worker.back_at_s = "starting", self.now_s + 0.1
            worker.generation, worker.found_generation, worker.newest, worker.sent = None, 0, None, None
            worker.unlinked, worker.undrained = {}, ()
            worker.replies.clear()
        self.workers = [one for one in self.workers if one.node or one.index < WORKERS or one.phase == "starting"]

    # In the end

    def settle(self, for_s: float) -> None:
        """Nothing is in anybody's way any more; let ``for_s`` pass."""
        self.registry_fails = False
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            for worker in list(self.workers):
                worker.hangs_since_s = None
                while worker.inbox or worker.replies:
                    if worker.phase != "ready":
                        break
                    self.deliver(worker)
                    self.hear(worker)
                worker.send()
            self.look()
            if not any(worker.inbox for worker in self.workers if worker.phase == "ready"):
                due_s = [one.due_s for one in self.slots.values()] + [one.back_at_s for one in self.workers]
                self.advance(min(end_s, max(self.now_s + 0.001, min([self.wake_at_s, *due_s]))))
                self.look()
