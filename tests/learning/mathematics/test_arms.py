"""A policy's reading of versions: each has its own numbers, and a little of those before it."""

import numpy as np
import pytest

from clipper.learning.mathematics.arms import MAX_PLACES, Arms, by_version, lineage, owners_of
from clipper.learning.mathematics.totals import Arrays, Totals

# From a store of before versions were told apart, and from now.
NUMBERS = {
    ("m", "scored"): 8.0,
    ("m:1", "scored"): 100.0,
    ("m:1", "loss"): 10.0,
    ("m:2", "scored"): 3.0,
    ("o:1", "scored"): 5.0,
    ("mine", "seen"): 2.0,
    ("mine:too", "seen"): 4.0,
    ("", "observations"): 7.0,
}
PREDECESSORS = {"1": None, "2": "1", "3": "2"}


def view(version: str, inherit: float) -> Totals:
    return Arms({"m": lineage("m", version, PREDECESSORS, inherit)}).view(Totals(NUMBERS))


def test_a_version_begins_with_a_part_of_its_predecessor() -> None:
    second = view("2", 0.1)
    assert second.number("m", "scored") == pytest.approx(3 + 10 + 0.8)
    assert second.number("m", "loss") == pytest.approx(1)
    third = view("3", 0.1)
    assert third.number("m", "scored") == pytest.approx(0.1 * 3 + 0.01 * 100 + 0.01 * 8)


def test_nothing_or_all_may_be_inherited() -> None:
    assert view("2", 0.0).number("m", "scored") == 3.0
    assert view("2", 1.0).number("m", "scored") == 111.0


def test_what_was_learned_by_model_is_of_versions_without_a_predecessor() -> None:
    assert view("1", 0.02).number("m", "scored") == 108.0


def test_other_versions_are_left_out_and_a_users_own_numbers_are_not() -> None:
    first = view("1", 0.5)
    assert first.number("m:2", "scored") == first.number("m:1", "scored") == 0.0
    assert (first.number("mine", "seen"), first.number("mine:too", "seen"), first.observations) == (2.0, 4.0, 7.0)


def test_versions_of_one_model_stand_side_by_side() -> None:
    arms = Arms({"m": lineage("m", "1", PREDECESSORS, 0.1), "m:2": lineage("m", "2", PREDECESSORS, 0.0)})
    totals = arms.view(Totals(NUMBERS))
    assert (totals.number("m", "scored"), totals.number("m:2", "scored")) == (108.0, 3.0)


def test_a_versions_own_learning_is_told_apart_from_what_it_inherited() -> None:
    arms = Arms({"m": lineage("m", "2", PREDECESSORS, 0.1)})
    totals = arms.view(Totals(NUMBERS))
    assert totals.number("m", "scored") > totals.of_version("m", "scored") == NUMBERS["m:2", "scored"]
    alone = Arms({"m": lineage("m", "2", {}, 0.1)}).view(Totals({("m:2", "scored"): 3.0, ("", "x"): 1.0}))
    assert (alone.of_version("m", "scored"), alone.of_version("", "x"), alone.of_version("m", "y")) == (3.0, 1.0, 0.0)


def test_increments_are_of_the_version_that_answered() -> None:
    arms = Arms({"m": lineage("m", "2", PREDECESSORS, 0.1)})
    assert arms.keyed({("m", "loss"): 1.0, ("", "mine"): 2.0}) == {("m:2", "loss"): 1.0, ("", "mine"): 2.0}
    pinned = arms.with_key("m", "m:1")
    assert pinned.keyed({("m", "loss"): 1.0}) == {("m:1", "loss"): 1.0}
    assert arms.with_key("other", "m:2").keyed({("m", "x"): 1.0, ("other", "x"): 2.0}) == {("m:2", "x"): 3.0}


def test_predecessors_in_a_circle_end() -> None:
    assert lineage("m", "1", {"1": "2", "2": "1"}, 1.0) == (("m:1", 1.0), ("m:2", 1.0))
    assert lineage("m", "3", {"3": "2", "2": "1", "1": "2"}, 1.0) == (("m:3", 1.0), ("m:2", 1.0), ("m:1", 1.0))


def test_a_predecessor_that_is_gone_still_counts() -> None:
    assert lineage("m", "9", {"9": "8"}, 0.5) == (("m:9", 1.0), ("m:8", 0.5), ("m", 0.5))


def test_predecessors_of_which_next_to_nothing_is_left_are_not_read() -> None:
    versions = {str(number): str(number - 1) if number else None for number in range(20)}
    found = lineage("m", "19", versions, 0.5)
    assert [weight for _, weight in found] == [0.5**step for step in range(10)]
    assert found[-1][0] == "m:10"
    assert lineage("m", "1", versions, 0.0) == (("m:1", 1.0),)


def test_arrays_are_inherited_as_numbers_are() -> None:
    first, second, other, own = (np.full(2, float(number)) for number in range(4))
    arrays = Arrays(
        {
            ("m:1", "w", 2): [(first, 0.5)],
            ("m:2", "w", 2): [(second, 0.25), (other, 1.0)],
            ("m:9", "w", 2): [(other, 1.0)],
            ("mine", "w", 2): [(own, 1.0)],
        },
        memo={"made": "before"},
    )
    arms = Arms({"m": lineage("m", "2", PREDECESSORS, 0.1)})
    seen = arms.view(Totals(NUMBERS, arrays=arrays)).arrays
    assert seen.parts == {
        ("m", "w", 2): [(second, 0.25), (other, 1.0), (first, 0.05)],
        ("mine", "w", 2): [(own, 1.0)],
    }
    assert seen.memo is arrays.memo
    assert arms.view(Totals(NUMBERS)).arrays.parts == {}


def test_arms_are_equal_with_the_same_versions_and_ramps() -> None:
    origins = {"m": lineage("m", "2", PREDECESSORS, 0.1)}
    assert Arms(origins) == Arms(dict(origins), ramps={})
    assert Arms(origins) != Arms(origins, ramps={"m": 1})
    assert Arms(origins) != Arms({"m": lineage("m", "1", PREDECESSORS, 0.1)})
    assert Arms(origins) != origins
    assert Arms(origins, ramps={"m": 1}).with_key("m", "m:3") == Arms({"m": (("m:3", 1.0),)})
    assert (Arms(origins).key("m"), Arms(origins).key("other")) == ("m:2", "other")


def test_more_keys_than_are_remembered_have_their_places_all_the_same() -> None:
    arms = Arms({"m": lineage("m", "2", PREDECESSORS, 0.5)})
    taught = {("m", f"n{number}"): float(number) for number in range(MAX_PLACES + 10)}
    for _ in range(2):
        keyed = arms.keyed(taught)
        assert keyed == {("m:2", name): amount for (_, name), amount in taught.items()}
        assert arms.view(Totals({key: float(amount) for key, amount in keyed.items()})).numbers == taught


STATE_KEYS = {"m:1": "m:@aa", "m:2": "m:@bb"}
OTHERS = {"m:1": "m:@cc"}
TAKEN_BY_OTHERS = {("m:@cc", "takes.1~never"): 1.0}


def test_a_state_names_versions_by_their_contents() -> None:
    origins = {"m": lineage("m", "2", PREDECESSORS, 0.1)}
    arms = Arms(origins, state_keys=STATE_KEYS)
    assert arms.key("m") == "m:2"
    assert arms.keyed({("m", "loss"): 1.0, ("", "mine"): 2.0}) == {("m:@bb", "loss"): 1.0, ("", "mine"): 2.0}
    assert arms.with_key("m", "m:1").keyed({("m", "loss"): 1.0}) == {("m:@aa", "loss"): 1.0}
    assert arms.lineup == Arms({"m": [("m:@bb", 1.0)]}).lineup != Arms(origins).lineup
    seen = arms.view(Totals({("m:@bb", "x"): 1.0, ("m:@aa", "x"): 10.0, ("m:@cc", "x"): 100.0}))
    assert seen.number("m", "x") == pytest.approx(2.0) and seen.of_version("m", "x") == 1.0
    assert set(seen.numbers) == {("m", "x")}  # nothing of other code under its name
    assert arms != Arms(origins) and arms == Arms(origins, state_keys=dict(STATE_KEYS))
    array, other = np.ones(2), np.zeros(2)
    arrays = Arrays({("m:@bb", "w", 2): [(array, 1.0)], ("m:@cc", "w", 2): [(other, 1.0)]})
    assert arms.view(Totals({}, arrays=arrays)).arrays.parts == {("m", "w", 2): [(array, 1.0)]}


def test_what_was_learned_by_name_is_of_the_first_taker() -> None:
    arms, others = (Arms({"m": lineage("m", "1", PREDECESSORS, 0.1)}, state_keys=keys) for keys in (STATE_KEYS, OTHERS))
    for each in (arms, others):
        assert each.beside(NUMBERS) is each
        assert each.view(Totals(NUMBERS)).number("m", "scored") == 108.0
    marks = others.takes(NUMBERS)
    assert marks == TAKEN_BY_OTHERS
    # Earlier Clippers go on, and what they learn counts for the same content.
    later = {**NUMBERS, **marks, ("m:@aa", "scored"): 3.0, ("m:@cc", "scored"): 5.0, ("m:1", "scored"): 101.0}
    assert others.beside(later).view(Totals(later)).number("m", "scored") == 114.0
    beside = arms.beside(later)
    assert beside.view(Totals(later)).number("m", "scored") == 11.0 and arms.takes(later) == others.takes(later) == {}
    array = np.ones(2)
    arrays = Arrays({("m:1", "w", 2): [(array, 1.0)]})
    assert beside.view(Totals(later, arrays=arrays)).arrays.parts == {}
    assert others.view(Totals(later, arrays=arrays)).arrays.parts == {("m", "w", 2): [(array, 1.0)]}
    assert beside != arms and beside.beside(NUMBERS) == arms


def test_of_two_takers_all_servers_agree_on_one() -> None:
    numbers = {**TAKEN_BY_OTHERS, ("m:@aa", "takes.1~never"): 2.0}
    assert owners_of(numbers) == {"m:1": "m:@aa"} == owners_of(dict(reversed(numbers.items())))


def test_marks_are_left_only_where_something_is_taken() -> None:
    arms = Arms({"m": lineage("m", "2", PREDECESSORS, 0.1), "o": lineage("o", "1", {}, 0.1)}, state_keys=STATE_KEYS)
    assert arms.takes({("m:@bb", "x"): 1.0, ("", "x"): 1.0}) == {}
    assert arms.takes(NUMBERS) == {("m:@aa", "takes.1~never"): 1.0, ("m:@bb", "takes.2~never"): 1.0}


def test_reports_read_a_state_by_the_servers_own_names() -> None:
    numbers = {("m:1", "x"): 1.0, ("m:@aa", "x"): 10.0, ("m:@cc", "x"): 100.0, ("m:3", "x"): 1000.0, ("", "x"): 2.0}
    rest = {("m:3", "x"): 1000.0, ("", "x"): 2.0}
    found = by_version(Totals(numbers), STATE_KEYS, {})
    assert found.numbers == {("m:1", "x"): 11.0, ("m:@cc", "x"): 100.0, **rest}
    found = by_version(Totals(numbers), STATE_KEYS, owners_of(TAKEN_BY_OTHERS))
    assert found.numbers == {("m:1", "x"): 10.0, ("m:@cc", "x"): 101.0, **rest}
