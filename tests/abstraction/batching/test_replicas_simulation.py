"""Unequal replicas behind one queue, in virtual time.

With as many clients as keep all of them busy. With fewer, batches are smaller than a replica alone would get, and where
much of a batch's time is fixed two replicas answer less than twice as much: two equal ones, too.
"""

import functools
from collections.abc import Sequence
from statistics import fmean

import pytest
from replicas_simulation import ReplicasSimulation
from simulation import Model

from clipper.snapshot import BatchingPolicy

SETTLED_S, END_S = 1.0, 3.0
SLOWER = 5
# How a batch's time is made up, and how many clients keep both busy.
MODELS = {
    "per row": (Model(0.0, 0.4e-3), 64),
    "mixed": (Model(1e-3, 0.1e-3), 128),
    "mostly fixed": (Model(3e-3, 0.02e-3), 256),
}


def slowed(model: Model) -> Model:
    return Model(SLOWER * model.fixed_s, SLOWER * model.per_row_s)


@functools.cache
def run(models: Sequence[Model], clients: int, policy: BatchingPolicy) -> ReplicasSimulation:
    return ReplicasSimulation(models, clients, policy, SETTLED_S).until(END_S)


@pytest.mark.parametrize("is_slow_first", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("policy", ["aimd", "quantile"])
def test_a_slow_replica_adds_what_it_can(policy: BatchingPolicy, name: str, is_slow_first: bool) -> None:
    fast, clients = MODELS[name]
    slow = slowed(fast)
    alone = sum(run((model,), clients, policy).answered.total() for model in (fast, slow))
    together = run((slow, fast) if is_slow_first else (fast, slow), clients, policy)
    assert together.answered.total() >= 0.9 * alone
    fast_sizes, slow_sizes = (together.sizes[number ^ is_slow_first] for number in (0, 1))
    assert fmean(slow_sizes) <= fmean(fast_sizes)
    assert slow_sizes


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
def test_with_few_clients_it_matters_not_which_replica_came_first(policy: BatchingPolicy) -> None:
    fast, slow = MODELS["mostly fixed"][0], slowed(MODELS["mostly fixed"][0])
    fast_first, slow_first = run((fast, slow), 64, policy), run((slow, fast), 64, policy)
    assert slow_first.answered.total() >= 0.9 * fast_first.answered.total()


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
def test_four_equal_replicas_answer_four_times_as_much(policy: BatchingPolicy) -> None:
    model = Model(1e-3, 0.1e-3)
    one = run((model,), 512, policy).answered.total()
    four = run((model,) * 4, 512, policy)
    assert four.answered.total() >= 3.6 * one
    assert min(four.answered.values()) >= 0.8 * max(four.answered.values())
