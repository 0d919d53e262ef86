import itertools
import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clipper.supervisor.managers.reconcile.plan import History, Plan, Slot, SlotState, plan_replicas
from clipper.values.types import ModelId

IDS = [ModelId("svm", "1"), ModelId("svm", "2"), ModelId("forest", "1")]

desired_replicas = st.dictionaries(st.sampled_from(IDS), st.integers(0, 4))
slots = st.builds(
    lambda model_id, index: Slot(model_id.name, model_id.version, index), st.sampled_from(IDS), st.integers(1, 5)
)
histories = st.builds(History, st.tuples(st.floats(0, 100)), st.integers(1, 9), st.booleans())
observations = st.lists(
    st.builds(SlotState, slots, st.sampled_from(["starting", "ready", "stopping", "dead"]), histories),
    unique_by=lambda one: one.slot,
)


def test_a_missing_replica_is_started_and_one_too_many_retired() -> None:
    seen = [SlotState(Slot("svm", "1", index), "ready") for index in (1, 3)]
    plan = plan_replicas({ModelId("svm", "1"): 2}, seen, 0.0)
    assert plan == Plan(start=(Slot("svm", "1", 2),), retire=(Slot("svm", "1", 3),))


def test_a_dead_one_waits_for_its_back_off() -> None:
    history = History().died(100.0, 0.0)
    seen = [SlotState(Slot("svm", "1", 1), "dead", history)]
    assert plan_replicas({ModelId("svm", "1"): 1}, seen, 100.05) == Plan(wake_at_s=100.1)
    assert plan_replicas({ModelId("svm", "1"): 1}, seen, 100.1) == Plan(start=(Slot("svm", "1", 1),))


def test_a_stopping_one_is_let_stop_before_its_slot_is_used_again() -> None:
    seen = [SlotState(Slot("svm", "1", 1), "stopping")]
    assert plan_replicas({ModelId("svm", "1"): 1}, seen, 0.0) == Plan()
    assert plan_replicas({}, seen, 0.0) == Plan()


@given(desired_replicas, observations, st.floats(0, 200), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(
    desired: dict[ModelId, int], seen: list[SlotState], now_s: float, rng: random.Random
) -> None:
    shuffled, items = list(seen), list(desired.items())
    rng.shuffle(shuffled)
    rng.shuffle(items)
    assert plan_replicas(desired, seen, now_s) == plan_replicas(dict(items), shuffled, now_s)


@given(desired_replicas, observations, st.floats(0, 200))
def test_applying_the_plan_reaches_a_fixed_point(
    desired: dict[ModelId, int], seen: list[SlotState], now_s: float
) -> None:
    state = {one.slot: one for one in seen}
    for _ in range(3):  # retire and stop; forget or start; nothing
        plan = plan_replicas(desired, state.values(), now_s)
        state |= {slot: SlotState(slot, "ready") for slot in plan.start}
        state |= {slot: SlotState(slot, "dead") for slot in plan.retire}
        state = {slot: one for slot, one in state.items() if slot not in plan.forget}
        state = {slot: SlotState(slot, "dead") if one.phase == "stopping" else one for slot, one in state.items()}
        now_s = max(now_s, plan.wake_at_s or now_s)
    for _ in range(len(state)):
        now_s = plan_replicas(desired, state.values(), now_s).wake_at_s or now_s
        started = plan_replicas(desired, state.values(), now_s).start
        state |= {slot: SlotState(slot, "ready") for slot in started}
    assert plan_replicas(desired, state.values(), now_s) == Plan()
    assert len(state) == sum(desired.values())


class Simulation(RuleBasedStateMachine):
    """Processes start, come up, die and stop as they like, in virtual time, under a plan that is applied at once."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 0.0
        self.desired: dict[ModelId, int] = {}
        self.state: dict[Slot, SlotState] = {}
        self.starts: dict[Slot, list[float]] = {}
        self.apply()

    def apply(self) -> None:
        self.plan = plan_replicas(self.desired, self.state.values(), self.now_s)
        for slot in self.plan.start:
            history = self.state[slot].history if slot in self.state else History()
            self.state[slot] = SlotState(slot, "starting", history)
            self.starts.setdefault(slot, []).append(self.now_s)
        for slot in self.plan.retire:
            self.state[slot] = SlotState(slot, "stopping", self.state[slot].history)
        for slot in self.plan.forget:
            del self.state[slot]
            self.starts.pop(slot, None)  # whoever wants it again begins anew

    @rule(desired=desired_replicas)
    def desire(self, desired: dict[ModelId, int]) -> None:
        self.desired = desired
        self.apply()

    @rule(data=st.data())
    def one_comes_up_or_dies(self, data: st.DataObject) -> None:
        alive = [slot for slot, one in self.state.items() if one.phase != "dead"]
        if not alive:
            return
        slot = data.draw(st.sampled_from(sorted(alive)))
        one = self.state[slot]
        if one.phase == "starting" and data.draw(st.booleans()):
            self.state[slot] = SlotState(slot, "ready", one.history)
        elif one.phase == "stopping":
            self.state[slot] = SlotState(slot, "dead", one.history)
            self.starts.pop(slot, None)  # stopped by wish, not by death: no pause is due
        else:
            uptime_s = data.draw(st.sampled_from([0.0, 1.0, 100.0]))
            self.state[slot] = SlotState(slot, "dead", one.history.died(self.now_s, uptime_s))
        self.apply()

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.plan.wake_at_s is not None and self.plan.wake_at_s <= end_s:
            self.now_s = self.plan.wake_at_s
            self.apply()
        self.now_s = end_s
        self.apply()

    @invariant()
    def applied_plan_leaves_nothing_to_do(self) -> None:
        again = plan_replicas(self.desired, self.state.values(), self.now_s)
        assert again == Plan(wake_at_s=again.wake_at_s)

    @invariant()
    def a_vacant_slot_has_its_wake_up(self) -> None:
        for one in self.state.values():
            if one.phase == "dead":
                assert self.plan.wake_at_s is not None
                assert self.now_s < one.history.restart_at_s <= self.now_s + 30.0

    @invariant()
    def no_slot_is_started_without_pause(self) -> None:
        for starts in self.starts.values():
            assert all(later > earlier for earlier, later in itertools.pairwise(starts))


TestSimulation = Simulation.TestCase
