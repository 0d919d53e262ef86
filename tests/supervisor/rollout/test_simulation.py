"""Whatever happens in whatever order: what must hold holds after each step, and in the end all is as was asked for.

``make rollout EXAMPLES=10000`` looks at more than the suite does.
"""

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from clipper.control.snapshot import VersionSnapshot
from clipper.supervisor.rollout.wanted import running
from clipper.values.types import ModelId
from tests.example_counts import share_of
from tests.supervisor.rollout.fake_processes import BAD, GOOD, WORKERS, FakeWorker
from tests.supervisor.rollout.fake_records import Records
from tests.supervisor.rollout.nodes_world import NODES, PER_NODE, NodesWorld
from tests.supervisor.rollout.world import World

EXAMPLES = int(os.environ.get("ROLLOUT_EXAMPLES", "60"))
# A version that hangs takes a minute to be given up, and one after another.
SETTLES_WITHIN_S = 400.0
CALM_S = 20.0

models = st.sampled_from(["m", "m", "n"])
# Few ids, so that much happens to the same version: there it gets difficult.
ids = st.sampled_from([ModelId("m", "1"), ModelId("m", "1"), ModelId("m", "2"), ModelId("m", "3"), ModelId("n", "1")])
workers = st.integers(0, WORKERS)
nodes = st.integers(0, len(NODES) - 1)


class Operations(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self.backup: tuple[Records, int] | None = None
        self.world.advance(0.0)

    def make_world(self) -> World:
        return World()

    # Operators

    @rule(id_=ids, does=st.sampled_from([*GOOD, *GOOD, *BAD]), artifact=st.sampled_from("ab"), current=st.booleans())
    def deploy(self, id_: ModelId, does: str, artifact: str, current: bool) -> None:
        self.world.operators.deploy(
            id_.name, id_.version, does, artifact, current=current, replicas=1 + (artifact == "b")
        )

    @rule(id_=ids)
    def rollback(self, id_: ModelId) -> None:
        self.world.operators.rollback(id_)

    @rule(model=models, seconds=st.sampled_from([0.0, 0.6, 5.0]))
    def rollback_to_previous(self, model: str, seconds: float) -> None:
        self.world.operators.rollback_to_previous(model)
        self.world.settle(seconds)

    @rule(id_=ids, replicas=st.integers(1, 3))
    def scale(self, id_: ModelId, replicas: int) -> None:
        self.world.operators.scale(id_, replicas)

    @rule(id_=ids, most=st.integers(1, 3))
    def let_sleep(self, id_: ModelId, most: int) -> None:
        self.world.operators.let_sleep(id_, most=most)

    @rule(id_=ids)
    def remove(self, id_: ModelId) -> None:
        self.world.operators.remove(id_)

    @rule(anew=st.booleans(), seconds=st.sampled_from([0.6, 3.0]))
    def remove_what_is_being_linked(self, anew: bool, seconds: float) -> None:
        """And deploy what is broken under its name, perhaps."""
        for id_ in list(self.world.rollout.versions.linking):
            self.world.operators.remove(id_)
            if anew:
                self.world.operators.deploy(id_.name, id_.version, "broken", "a", current=True, replicas=1)
        self.world.settle(seconds)

    @rule(seconds=st.sampled_from([0.6, 3.0]))
    def lose_what_is_being_linked(self, seconds: float) -> None:
        for one in self.world.slots.values():
            if one.slot.model_id in self.world.rollout.versions.linking and one.phase == "ready":
                one.die(self.world.now_s, "killed")
        self.world.settle(seconds)

    @rule(id_=ids, does=st.sampled_from([*GOOD, *BAD]), artifact=st.sampled_from("ab"))
    def deploy_anew(self, id_: ModelId, does: str, artifact: str) -> None:
        """Another version under the name of one that is removed, before anybody has looked."""
        self.world.operators.remove(id_)
        self.world.operators.deploy(id_.name, id_.version, does, artifact, current=True, replicas=1)

    @rule(model=models)
    def remove_model(self, model: str) -> None:
        self.world.operators.remove_model(model)

    @rule(id_=ids)
    def pin(self, id_: ModelId) -> None:
        self.world.operators.pin(id_)

    @rule()
    def unpin(self) -> None:
        self.world.operators.unpin()

    @rule(model=models)
    def learn_by(self, model: str) -> None:
        self.world.operators.learn_by(model)

    @rule(model=models)
    def follow(self, model: str) -> None:
        self.world.operators.follow(model)

    @rule()
    def end_learning(self) -> None:
        self.world.operators.end_learning()

    @rule(is_good=st.booleans())
    def judge_newcomers(self, is_good: bool) -> None:
        self.world.operators.judge_newcomers(is_good=is_good)

    @rule(judged=st.sampled_from([None, True, False]))
    def deploy_over_what_is_ramped(self, judged: bool | None) -> None:
        self.world.operators.learn_by("m")
        for version in "123":
            self.world.operators.deploy("m", version, "good", "a", current=True, replicas=1)
            self.world.settle(5.0)
            if judged is not None:
                self.world.operators.judge_newcomers(is_good=judged)

    @rule(waits_s=st.sampled_from([0.1, 2.0]))
    def deploy_and_think_better_of_it(self, waits_s: float) -> None:
        """A rollback returns to the current version while its successor starts."""
        self.world.operators.deploy("m", "1", "good", "a", current=True, replicas=1)
        self.world.settle(3.0)
        self.world.operators.remove(ModelId("m", "9"))
        self.world.operators.deploy("m", "9", "slow", "a", current=True, replicas=1)
        self.world.settle(waits_s)
        current = self.world.records.models["m"].current
        if current is not None:
            self.world.operators.rollback(ModelId("m", current))
        self.world.settle(15.0)

    @rule(id_=ids, sleeps_s=st.sampled_from([0.0, 0.3, 5.0]), wakes_s=st.sampled_from([0.0, 0.6, 9.0]))
    def sleep_and_wake(self, id_: ModelId, sleeps_s: float, wakes_s: float) -> None:
        """And whatever comes next finds it asleep, awake, or between these."""
        self.world.operators.let_sleep(id_, most=2)
        self.world.operators.fall_asleep(id_)
        self.world.settle(sleeps_s)
        self.world.ask_sleeper(id_)
        self.world.settle(wakes_s)

    # Faults

    @rule(id_=ids)
    def fall_asleep(self, id_: ModelId) -> None:
        self.world.operators.fall_asleep(id_)

    @rule(id_=ids)
    def ask_sleeper(self, id_: ModelId) -> None:
        self.world.ask_sleeper(id_)

    @rule(number=st.integers(0, 5))
    def kill_replica(self, number: int) -> None:
        living = [one for one in self.world.slots.values() if one.phase in ("starting", "ready")]
        if living:
            living[number % len(living)].die(self.world.now_s, "killed")

    @rule(position=workers)
    def kill_worker(self, position: int) -> None:
        if position < len(self.world.workers):
            self.world.kill_worker(position)

    @rule(position=workers)
    def hang_worker(self, position: int) -> None:
        if position < len(self.world.workers) and self.world.workers[position].hangs_since_s is None:
            self.world.workers[position].hangs_since_s = self.world.now_s

    @rule(position=workers, seconds=st.sampled_from([5.0, 100.0]))
    def slow_batches(self, position: int, seconds: float) -> None:
        if position < len(self.world.workers):
            worker = self.world.workers[position]
            worker.busy |= dict.fromkeys(worker.asks, self.world.now_s + seconds)

    @rule(fails=st.booleans())
    def registry(self, fails: bool) -> None:
        self.world.registry_fails = fails

    @rule(upgrade=st.booleans())
    def restart(self, upgrade: bool) -> None:
        self.world.restart(upgrade=upgrade)

    @rule(port=st.sampled_from([1337, 1400]), store=st.sampled_from("ab"))
    def restart_on_another_port_or_store(self, port: int, store: str) -> None:
        self.world.restart(settings=replace(self.world.settings, port=port, store_digest=store))

    @rule(cache_bytes=st.sampled_from([1000, 2000]))
    def restart_with_other_settings(self, cache_bytes: int) -> None:
        self.world.restart(settings=replace(self.world.settings, cache_bytes=cache_bytes))

    @rule(id_=ids, replicas=st.integers(1, 2), seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def upgrade_what_serves(self, id_: ModelId, replicas: int, seconds: float) -> None:
        self.world.operators.deploy(id_.name, id_.version, "good", "a", current=True, replicas=replicas)
        self.world.settle(5.0)
        self.world.restart(upgrade=True)
        self.world.settle(seconds)

    @rule(id_=ids)
    def scale_down_while_a_worker_drains(self, id_: ModelId) -> None:
        """A worker that drains still has batches of its own at the replicas, and reports nothing."""
        self.world.operators.deploy(id_.name, id_.version, "good", "a", current=True, replicas=2)
        self.world.operators.scale(id_, 2)
        self.world.settle(5.0)
        self.world.restart(upgrade=True)
        for _ in range(60):
            self.world.settle(0.1)
            if any(worker.phase == "draining" for worker in self.world.workers):
                break
        self.world.operators.scale(id_, 1)
        self.world.settle(2.5)

    @rule()
    def back_up(self) -> None:
        self.backup = self.world.records.copy(), self.world.epoch

    @rule(move_away=st.booleans())
    def restore(self, move_away: bool) -> None:
        records, epoch = (Records(), 0) if move_away or self.backup is None else self.backup
        self.world.restart(records=records.copy(), epoch=epoch)

    # Time and messages

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 16.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(self.world.now_s + seconds)
        self.world.look()

    @rule(position=workers)
    def deliver(self, position: int) -> None:
        if position < len(self.world.workers):
            self.world.deliver(self.world.workers[position])

    @rule(position=workers)
    def hear(self, position: int) -> None:
        if position < len(self.world.workers):
            self.world.hear(self.world.workers[position])
            self.world.look()

    @rule()
    def look(self) -> None:
        self.world.look()

    @rule(seconds=st.sampled_from([0.6, 3.0, 30.0]))
    def go_on(self, seconds: float) -> None:
        """All goes well for a while."""
        self.world.settle(seconds)

    @invariant()
    def generations_are_below_those_that_come(self) -> None:
        for worker in self.world.workers:
            if worker.generation is not None and worker.found_generation == 0:
                assert worker.generation <= worker.serves.generation

    def teardown(self) -> None:
        self.world.settle(SETTLES_WITHIN_S)
        self.check_is_as_wanted()
        generation, lives = self.world.rollout.snapshots.generation, self.lives()
        self.world.settle(CALM_S)
        if self.lives() == lives:
            assert self.world.rollout.snapshots.generation == generation, "snapshots are pushed for ever"

    def lives(self) -> list[object]:
        return [(one.history, one.id) for one in self.world.slots.values()]

    def check_is_as_wanted(self) -> None:
        world = self.world
        facts = world.facts()
        assert all(worker.phase == "ready" and worker.build == world.build for worker in world.workers), world.workers
        assert all(worker.settings == world.settings for worker in world.workers), "one runs with other settings"
        assert len(world.workers) == (len(NODES) * PER_NODE if isinstance(world, NodesWorld) else WORKERS)
        told = {worker.serves.models for worker in world.workers}
        assert len(told) == 1, "workers serve by different snapshots"
        for id_, record in world.records.versions.items():
            is_bad = record.spec.target in BAD
            slots = [one for one in facts.slots if one.slot.model_id == id_]
            if record.state == "ready" and not is_bad:
                assert [one.phase for one in slots] == ["ready"] * running(world.records)[id_], (id_, slots)
                assert not any(one.is_outdated for one in slots)
                assert not any(one.is_starting for worker in world.workers for one in versions_of(worker, id_))
                assert all(one.id in worker.asks for one in slots for worker in world.workers)
                may_sleep = record.scaling is not None and record.scaling.min == 0
                assert {one.wakes for worker in world.workers for one in versions_of(worker, id_)} == {may_sleep}
            if not is_bad:
                assert record.state in ("ready", "sleeping", "failed"), record
            if record.state in ("failed", "sleeping"):
                assert slots == []
            assert (record.state in ("failed", "sleeping")) == (id_ not in running(world.records)), record
            assert record.promotion is None, record
        assert not world.rollout.versions.linking and not world.rollout.replicas.retired
        self.check_last_wishes()

    def check_last_wishes(self) -> None:
        """The version that was asked for last is current, if it is still there and can run."""
        for (name, version), number in self.world.operators.last_asked():
            record = self.world.records.versions[ModelId(name, version)]
            model = self.world.records.models[name]
            assert record.state in ("ready", "failed") or record.spec.target in BAD, record
            if record.state == "ready" and record.last_error is None:
                assert model.current == version, f"{record.id}, of request {number}, is not current: {model}"


def versions_of(worker: FakeWorker, id_: ModelId) -> list[VersionSnapshot]:
    """The entries of a version in the snapshot by which a worker serves."""
    models = worker.serves.models
    return [one for model in models if model.name == id_.name for one in model.versions if one.version == id_.version]


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=share_of(EXAMPLES), stateful_step_count=50)


class OnNodes(Operations):
    """Workers on the nodes of a cluster."""

    def make_world(self) -> NodesWorld:
        return NodesWorld()

    @property
    def on_nodes(self) -> NodesWorld:
        assert isinstance(self.world, NodesWorld)
        return self.world

    @rule(number=nodes)
    def lose_node(self, number: int) -> None:
        self.on_nodes.lose_node(number)

    @rule(number=nodes)
    def join_node(self, number: int) -> None:
        self.on_nodes.nodes[number].is_up = True

    @rule()
    def follow_nodes(self) -> None:
        self.on_nodes.follow_nodes()
        self.world.look()

    @rule(position=workers)
    def cut(self, position: int) -> None:
        if position < len(self.world.workers):
            self.on_nodes.cut(position)

    @rule(position=workers)
    def heal(self, position: int) -> None:
        if position < len(self.world.workers):
            self.on_nodes.heal(position)

    @rule(position=workers, id_=ids, seconds=st.sampled_from([0.5, 3.0, 30.0]))
    def deploy_while_a_worker_is_lost(self, position: int, id_: ModelId, seconds: float) -> None:
        """Nothing waits for it. It counts again once it serves by what came meanwhile: commits are held against it."""
        self.world.settle(5.0)
        position = min(position, len(self.world.workers) - 1)
        self.on_nodes.cut(position)
        if self.world.workers[position].cut_since_s is None:
            return  # it is being replaced
        self.world.advance(self.world.now_s + 16.0)
        before = self.world.records.versions.get(id_)
        self.world.operators.deploy(id_.name, id_.version, "good", "a", current=True, replicas=2)
        World.settle(self.world, seconds)
        assert self.world.workers[position].phase == "lost"
        if before is None and seconds == 30.0:
            assert self.world.records.versions[id_].state != "starting", "a worker that is lost is waited for"
        self.on_nodes.heal(position)
        self.world.look()


TestOnNodes = OnNodes.TestCase
TestOnNodes.settings = settings(max_examples=share_of(EXAMPLES // 3), stateful_step_count=50)
