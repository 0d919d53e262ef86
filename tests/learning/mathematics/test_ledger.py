"""Additive sums that forget: order, merging, decay, bounds."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.ledger import EPOCH_HALF_LIVES, MAX_KEYS, Epoch, Ledger, fading, forget_keys

HALF_LIFE = 10
HORIZON = 1 / (1 - 2 ** (-1 / HALF_LIFE))

amounts = st.floats(-100, 100, allow_nan=False)
increments = st.dictionaries(st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["loss", "pulls"])), amounts)


def learn(ledger: Ledger, taught: Sequence[dict[tuple[str, str], float]]) -> list[dict[str, float]]:
    entries = []
    for item in taught:
        entries.append(ledger.entries(item))
        ledger.add(entries[-1])
    return entries


def one_a_time(half_life: int | None, count: int) -> Ledger:
    ledger = Ledger(half_life)
    learn(ledger, [{("a", "loss"): 1.0}] * count)
    return ledger


@given(st.lists(increments, max_size=40), st.randoms(use_true_random=False))
def test_entries_in_any_order_give_the_same_totals(taught, random) -> None:
    ledger = Ledger(half_life=1)  # so that 40 observations are more than one epoch
    entries = learn(ledger, taught)
    random.shuffle(entries)
    other = Ledger(half_life=1)
    for entry in entries:
        other.add(entry)
    assert other.clock == ledger.clock == len(taught)
    for key, amount in ledger.totals().numbers.items():
        assert other.totals().number(*key) == pytest.approx(amount, rel=1e-9, abs=1e-6)


def test_two_writers_that_add_to_one_store_learn_what_one_would_have() -> None:
    one = one_a_time(1000, 200)
    store = Ledger(1000)
    for _ in range(2):
        learned_alone = one_a_time(1000, 100)
        store.add(learned_alone.sums())
    assert store.clock == one.clock
    # Each lags by the other's 100 observations at most: a factor of 2^(-100 / 1000).
    assert one.totals().number("a", "loss") * 2**-0.1 <= store.totals().number("a", "loss")
    assert store.totals().number("a", "loss") <= one.totals().number("a", "loss")


def test_an_increment_counts_half_after_a_half_life() -> None:
    ledger = Ledger(HALF_LIFE)
    ledger.add(ledger.entries({("a", "loss"): 8.0}))
    learn(ledger, [{}] * HALF_LIFE)
    assert ledger.totals().number("a", "loss") == pytest.approx(8.0 * 2 ** (-(HALF_LIFE + 1) / HALF_LIFE))


@pytest.mark.parametrize("count", [1, 31, 32 * HALF_LIFE - 1, 32 * HALF_LIFE, 32 * HALF_LIFE + 1, 1000])
def test_totals_are_the_plain_decayed_sum_across_epochs(count: int) -> None:
    expected = sum(2 ** (-age / HALF_LIFE) for age in range(1, count + 1))
    assert one_a_time(HALF_LIFE, count).totals().number("a", "loss") == pytest.approx(expected, rel=1e-6)
    assert one_a_time(HALF_LIFE, count).totals().observations == pytest.approx(expected, rel=1e-6)


def test_without_a_half_life_nothing_is_forgotten() -> None:
    ledger = one_a_time(None, 1000)
    assert ledger.totals().number("a", "loss") == 1000
    assert ledger.sums() == {"observations": 1000, "never@0/a/loss": 1000, "never@0//observations": 1000}


def test_ten_million_observations_stay_bounded() -> None:
    ledger = Ledger(1000)
    step = 100  # few beside the half-life
    largest = 0.0
    for _ in range(10_000_000 // step):
        entries = ledger.entries({("a", "loss"): float(step)}, observations=step)
        largest = max(largest, *entries.values())
        ledger.add(entries)
        ledger.drop_stale()
    horizon = 1000 / math.log(2)
    assert ledger.clock == 10_000_000
    assert largest <= step * 2.0**EPOCH_HALF_LIVES
    assert len(ledger.sums()) == 1 + 2 * 2
    assert ledger.totals().number("a", "loss") == pytest.approx(horizon, rel=0.05)


def test_what_is_two_epochs_old_is_stale_and_counts_for_nothing() -> None:
    ledger = Ledger(half_life=1)
    learn(ledger, [{("a", "loss"): 1.0}] * 63)
    assert ledger.stale() == []
    before = ledger.totals().number("a", "loss")
    learn(ledger, [{("a", "loss"): 1.0}])
    assert sorted(ledger.stale()) == ["1@0//observations", "1@0/a/loss"]
    ledger.drop_stale()
    assert ledger.stale() == []
    assert "1@0/a/loss" not in ledger.sums()
    assert ledger.totals().number("a", "loss") == pytest.approx(before, abs=2.0**-31)


def test_a_state_keeps_its_meaning_under_another_half_life() -> None:
    before = one_a_time(HALF_LIFE, 500)
    after = Ledger(1000, before.sums())
    assert after.totals().numbers == before.totals().numbers
    learn(after, [{("a", "loss"): 1.0}] * HALF_LIFE)
    old, new = before.totals().number("a", "loss") / 2, sum(2 ** (-age / 1000) for age in range(1, HALF_LIFE + 1))
    assert after.totals().number("a", "loss") == pytest.approx(old + new)


@given(st.lists(increments, max_size=10), st.sampled_from([None, 1, 1000]))
def test_a_ledger_of_the_sums_has_learned_the_same(taught, half_life) -> None:
    ledger = Ledger(half_life)
    learn(ledger, taught)
    again = Ledger(half_life, ledger.sums())
    assert again.sums() == ledger.sums()
    assert again.totals().numbers == ledger.totals().numbers


def test_totals_and_their_memo_last_until_something_is_added() -> None:
    ledger = one_a_time(HALF_LIFE, 1)
    first = ledger.totals()
    assert ledger.totals() is first
    learn(ledger, [{}])
    assert ledger.totals() is not first


def test_numbers_seen_before_their_clock_are_not_blown_up() -> None:
    ledger = Ledger(HALF_LIFE, {"10@32000/a/loss": 5.0})
    assert ledger.totals().number("a", "loss") == 5.0


@pytest.mark.pure  # the compiled form refuses what is no int by itself
@pytest.mark.parametrize("half_life", [0, -1, 0.5, 1.5, True, "10", math.inf, math.nan])
def test_a_half_life_is_a_whole_number_from_one_on(half_life) -> None:
    with pytest.raises(InvalidArgument, match="half_life is"):
        Ledger(half_life)


@pytest.mark.parametrize(
    "key",
    ["loss", "10@0/loss", "x@0/a/loss", "10/a/loss", "10@0/a/loss/more", "0@0/a/loss", "-5@0/a/loss", "010@0/a/loss"],
)
def test_a_key_of_no_state_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="HALF_LIFE@START/MODEL/NAME"):
        Ledger(HALF_LIFE, {key: 1.0})


@given(st.integers(0, 10**9), st.one_of(st.none(), st.integers(1, 10**6)))
def test_scales_are_bounded_and_epochs_round_trip(clock: int, half_life: int | None) -> None:
    epoch = Epoch.at(clock, half_life)
    assert 1.0 <= epoch.scale(clock) <= 2.0**EPOCH_HALF_LIVES
    assert epoch.scale(clock) * epoch.fade(clock) == pytest.approx(1.0)
    assert Epoch.parse(str(epoch)) == epoch


def test_a_number_may_fade_by_a_half_life_of_its_own() -> None:
    ledger, names = Ledger(100), {"loss": 100, fading("loss", 10): 10, fading("loss", None): None}
    # More than two epochs of the shorter one.
    learn(ledger, [{("a", name): 1.0 for name in names}] * 700)
    ledger.drop_stale()
    for name, half_life in names.items():
        kept = 1.0 if half_life is None else 2 ** (-1 / half_life)
        assert ledger.totals().number("a", name) == pytest.approx(sum(kept**age for age in range(1, 701)))
    assert Ledger(100, ledger.sums()).totals().numbers == pytest.approx(dict(ledger.totals().numbers))


@pytest.mark.parametrize("name", ["loss~0", "loss~", "loss~x", "loss~-5", "loss~1.5", "~none", "loss~0100"])
def test_a_name_without_a_half_life_fades_as_its_state(name: str) -> None:
    assert f"10@0/a/{name}" in Ledger(10).entries({("a", name): 1.0})


def test_an_array_fades_as_a_number_does_and_is_kept_with_the_sums() -> None:
    ledger = Ledger(10)
    for number in range(700):  # over two epochs
        ledger.add(ledger.entries({("m", "x"): float(number), ("m", "s"): np.array([float(number), 1.0])}))
        ledger.drop_stale()
    again = Ledger(10, ledger.sums())
    for each in (ledger, again):
        totals = each.totals()
        assert totals.array("m", "s", 2) == pytest.approx([totals.number("m", "x"), totals.observations])
        # Of another size, or of another model, nothing was ever added.
        assert totals.array("m", "s", 3).tolist() == [0.0, 0.0, 0.0]
        assert totals.array("o", "s", 2).tolist() == [0.0, 0.0]
    assert len([key for key in ledger.sums() if key.endswith("/m/s/2")]) == 2


def test_a_context_sees_its_applications_arrays() -> None:
    crowd, own = Ledger(None), Ledger(None)
    crowd.add(crowd.entries({("m", "s"): np.array([1.0, 2.0])}))
    own.add(own.entries({("m", "x"): 1.0}))
    for weight in (0.0, 10.0):
        for totals in (own.totals(), Ledger(None).totals()):
            assert totals.with_prior(crowd.totals(), weight).array("m", "s", 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("key", ["never@0/m/s", "never@0/m/s/3", "never@0/s/2", "m/s/2"])
def test_a_key_that_is_not_of_such_an_array_is_refused(key: str) -> None:
    with pytest.raises(
        InvalidArgument, match="is not the key of a learned state: expected HALF_LIFE@START/MODEL/NAME/2"
    ):
        Ledger(None, {key: np.zeros(2)})


def test_entries_are_scaled_as_of_the_observations_still_to_be_added() -> None:
    ledger = Ledger(10)
    entries = ledger.entries({("a", "loss"): 0.5, ("a", fading("loss", 5)): 1.0}, observations=3, ahead=20)
    assert entries == {"10@0//observations": 12.0, "observations": 3.0, "10@0/a/loss": 2.0, "5@0/a/loss~5": 16.0}
    late = ledger.entries({("a", "loss"): 0.5, ("a", fading("loss", None)): 0.5}, ahead=EPOCH_HALF_LIVES * 10)
    assert late == {
        "10@320//observations": 1.0,
        "observations": 1.0,
        "10@320/a/loss": 0.5,
        "never@0/a/loss~never": 0.5,
    }


def test_its_length_is_of_numbers_alone() -> None:
    ledger = Ledger(10)
    ledger.add(ledger.entries({("a", "loss"): 1.0, ("a", "weights"): np.zeros(2)}))
    assert len(ledger) == 2  # the loss, and the observations


def test_more_keys_than_are_remembered_are_right_all_the_same() -> None:
    ledger = Ledger(HALF_LIFE)
    taught = {("m", f"n{number}"): float(number) for number in range(MAX_KEYS + 10)}
    for _ in range(2):
        ledger.add(ledger.entries(taught))
    totals = ledger.totals()
    assert len(ledger) == len(taught) + 1
    assert all(totals.number(*key) == pytest.approx(amount * (2**-0.2 + 2**-0.1)) for key, amount in taught.items())


def test_a_key_that_was_forgotten_is_the_same_object_when_it_comes_again() -> None:
    ledger, taught = Ledger(HALF_LIFE), {("m", "loss"): 1.0}
    ledger.add(ledger.entries(taught))
    held = {id(key) for key in ledger.sums() if key != "observations"}
    forget_keys()
    assert held == {id(key) for key in ledger.entries(taught) if key != "observations"}
    ledger.add(ledger.entries(taught))
    assert ledger.totals().number("m", "loss") == pytest.approx(2**-0.2 + 2**-0.1)
