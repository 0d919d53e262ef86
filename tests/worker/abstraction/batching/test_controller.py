"""The rules of every controller, and the factory."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.settings.version import Batching, BatchingPolicy
from clipper.worker.abstraction.batching.aimd import Aimd
from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from clipper.worker.abstraction.batching.controller import Controller, make_controller
from clipper.worker.abstraction.batching.quantile import Quantile
from clipper.worker.abstraction.batching.quantile_refit import RefittedQuantile
from tests.example_counts import share_of

BUDGET_S = 0.006
# Clipper's variations do what the paper's own rules do not.
VARIATIONS: tuple[BatchingPolicy, ...] = ("aimd_damped", "quantile_refit")
ADAPTIVE: tuple[BatchingPolicy, ...] = ("aimd", "quantile", *VARIATIONS)

sizes = st.integers(1, 5000)
services_s = st.floats(0.0, 10.0, allow_nan=False)
batches = st.lists(st.tuples(sizes, services_s, st.booleans()), max_size=300)


def saturate(controller: Controller, fixed_s: float, per_row_s: float, count: int) -> None:
    """Full batches, without noise."""
    for _ in range(count):
        controller.record(controller.limit, fixed_s + per_row_s * controller.limit, True)


def make(policy: BatchingPolicy, budget_s: float = BUDGET_S, max_batch: int = Batching().max_batch) -> Controller:
    controller = make_controller(Batching(policy, max_batch=max_batch), budget_s)
    assert controller is not None
    controller.set_budget(budget_s)
    return controller


@pytest.mark.parametrize(("policy", "kind"), [*zip(ADAPTIVE, (Aimd, Quantile, DampedAimd, RefittedQuantile))])
def test_the_policy_says_which_controller(policy: BatchingPolicy, kind: type) -> None:
    controller = make(policy)
    assert type(controller) is kind
    assert controller.share_of_slo == (0.3 if policy in VARIATIONS else 1.0)
    assert controller.limit == 1


@pytest.mark.parametrize("policy", ["goodput", "fixed", "none"])
def test_there_is_none_where_deadlines_or_settings_give_the_batch_size(policy: BatchingPolicy) -> None:
    assert make_controller(Batching(policy), BUDGET_S) is None


@pytest.mark.parametrize("policy", ADAPTIVE)
@given(observed=batches, max_batch=st.integers(1, 2000), budgets_s=st.lists(st.floats(1e-6, 10.0), max_size=5))
@settings(max_examples=share_of(50), deadline=None)
def test_the_limit_is_always_from_1_to_max_batch(
    policy: BatchingPolicy, observed: list[tuple[int, float, bool]], max_batch: int, budgets_s: list[float]
) -> None:
    controller = make(policy, BUDGET_S, max_batch)
    for position, batch in enumerate(observed):
        if budgets_s and position % 50 == 49:
            controller.set_budget(budgets_s.pop())
        controller.record(*batch)
        assert 1 <= controller.limit <= max_batch


@pytest.mark.parametrize("policy", ADAPTIVE)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 400))
@settings(max_examples=share_of(50), deadline=None)
def test_light_load_never_shrinks_the_limit(policy: BatchingPolicy, seed: int, count: int) -> None:
    rng = random.Random(seed)
    controller = make(policy, BUDGET_S)
    saturate(controller, 0.0002, 20e-6, 300)
    grown = controller.limit
    for _ in range(count):
        controller.record(rng.randint(1, grown - 1), rng.uniform(0.0001, BUDGET_S), False)
        assert controller.limit >= grown


@pytest.mark.parametrize("policy", ADAPTIVE)
@given(observed=st.lists(st.tuples(sizes, services_s), max_size=300))
@settings(max_examples=share_of(50), deadline=None)
def test_batches_that_were_not_full_never_grow_the_limit(
    policy: BatchingPolicy, observed: list[tuple[int, float]]
) -> None:
    controller = make(policy, BUDGET_S)
    for size, service_s in observed:
        before = controller.limit
        controller.record(size, service_s, False)
        assert controller.limit <= before


@pytest.mark.parametrize("policy", ADAPTIVE)
@pytest.mark.parametrize("grown_by", [50, 150, 500, 3000])
def test_one_slow_batch_hardly_moves_the_limit(policy: BatchingPolicy, grown_by: int) -> None:
    controller = make(policy, BUDGET_S)
    saturate(controller, 0.0002, 20e-6, grown_by)
    grown = controller.limit
    controller.record(grown, 0.5, True)
    saturate(controller, 0.0002, 20e-6, 100)
    assert controller.limit >= 0.9 * grown


@pytest.mark.parametrize("policy", VARIATIONS)
@given(fixed_s=st.floats(0.0, 0.003), per_row_s=st.floats(2e-6, 0.004), budget_s=st.floats(0.0045, 0.05))
@settings(max_examples=share_of(60), deadline=None)
def test_it_comes_near_the_largest_batch_within_the_budget(
    policy: BatchingPolicy, fixed_s: float, per_row_s: float, budget_s: float
) -> None:
    controller = make(policy, budget_s, 512)
    saturate(controller, fixed_s, per_row_s, 1000)
    ideal = max(1, min(512, int((budget_s - fixed_s) / per_row_s)))
    assert 0.8 * ideal - 1 <= controller.limit <= 1.25 * ideal + 1


@pytest.mark.parametrize("policy", VARIATIONS)
def test_a_smaller_budget_is_followed(policy: BatchingPolicy) -> None:
    controller = make(policy, 0.03)
    saturate(controller, 0.0002, 20e-6, 500)
    assert controller.limit > 1000
    controller.set_budget(0.003)
    saturate(controller, 0.0002, 20e-6, 200)
    assert 110 <= controller.limit <= 140
    controller.set_budget(0.03)
    saturate(controller, 0.0002, 20e-6, 500)
    assert controller.limit > 1000


@pytest.mark.parametrize("policy", VARIATIONS)
@pytest.mark.parametrize(("fixed_s", "per_row_s"), [(0.0059, 10e-6), (0.008, 50e-6), (0.1, 1e-6), (0.05, 0.0)])
def test_where_no_limit_meets_the_budget_it_does_not_sink_to_one(
    policy: BatchingPolicy, fixed_s: float, per_row_s: float
) -> None:
    controller = make(policy, BUDGET_S, 128)
    saturate(controller, fixed_s, per_row_s, 2000)
    assert controller.limit >= min(128, 0.3 * fixed_s / max(per_row_s, 1e-9))
