"""One answer of many, and how sure it is."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.json_values import value_key
from clipper.learning.policies.combine import COMBINERS, Combined, make_combiner, mean, median, vote, vote_is_settled

MODELS = ("a", "b", "c", "d", "e")
EQUAL = (0.2,) * 5

numbers = st.floats(-1e308, 1e308).map(lambda number: json.dumps(number).encode())
labels = st.sampled_from([b"1", b"1.0", b"2", b"true", b'"x"', b"[1,2]", b"[1, 2.0]", b"null"])
weights = st.lists(st.floats(0, 1), min_size=5, max_size=5)


def outputs_of(strategy):
    return st.dictionaries(st.sampled_from(MODELS), strategy, min_size=1)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"a": b"1", "b": b"1", "c": b"1", "d": b"1", "e": b"1"}, Combined(b"1", 1.0)),
        ({"a": b"1", "b": b"2", "c": b"2", "d": b"2", "e": b"1"}, Combined(b"2", 0.6)),
        ({"a": b"3", "b": b"7", "c": b"3.0", "d": b"7", "e": b"3e0"}, Combined(b"3", 0.6)),
        ({"a": b"1", "b": b"true", "c": b"true"}, Combined(b"true", 0.4)),
        ({"e": b"5", "d": b"4"}, Combined(b"4", 0.2)),
        ({"c": b"5"}, Combined(b"5", 0.2)),
        ({"a": b"5", "b": b"5", "c": b"5"}, Combined(b"5", 0.6)),
        # NaN is null, and says nothing where another model says something.
        ({"a": b"null", "b": b"null", "c": b"5"}, Combined(b"5", 0.2)),
        ({"a": b"null", "b": b"null"}, Combined(b"null", 0.4)),
    ],
)
def test_votes(outputs: dict[str, bytes], expected: Combined) -> None:
    combined = vote(MODELS, EQUAL, outputs)
    assert (combined.output, combined.confidence) == (expected.output, pytest.approx(expected.confidence))


def test_a_heavy_vote_outweighs_two_light_ones() -> None:
    combined = vote(("a", "b", "c"), (0.6, 0.2, 0.2), {"a": b"1", "b": b"2", "c": b"2"})
    assert (combined.output, combined.confidence) == (b"1", pytest.approx(0.6))


def test_one_model_is_believed() -> None:
    assert vote(("a",), (0.0,), {"a": b"nonsense"}) == Combined(b"nonsense", 1.0)
    assert mean(("a",), (0.1,), {"a": b"3"}) == Combined(b"3", 1.0)


def test_models_without_weight_count_alike_when_only_they_answer() -> None:
    combined = vote(("a", "b", "c", "d"), (1.0, 0.0, 0.0, 0.0), {"b": b"1", "c": b"2", "d": b"2"})
    assert (combined.output, combined.confidence) == (b"2", 0.5)


@pytest.mark.parametrize(
    ("combine", "outputs", "output", "confidence"),
    [
        (mean, {"a": b"1", "b": b"2", "c": b"3"}, 2.0, 0.2),
        (mean, {"a": b"10", "b": b"10.5", "c": b"11"}, 10.5, 0.6),
        (mean, {"a": b"[0, 2]", "b": b"[2, 4]"}, [1.0, 3.0], 0.0),
        (mean, {"a": b"[[1, 2], [3, 4]]", "b": b"[[1, 2], [3, 4]]"}, [[1.0, 2.0], [3.0, 4.0]], 0.4),
        (mean, {"a": b"1", "b": b'"broken"', "c": b"1"}, 1.0, 0.4),
        (mean, {"a": b"[1]", "b": b"5", "c": b"5"}, 5.0, 0.4),
        (mean, {"a": b'"x"', "b": b'"y"', "c": b'"y"'}, "y", 0.4),
        (median, {"a": b"1", "b": b"2", "c": b"1000000"}, 2.0, 0.2),
        (median, {"a": b"1", "b": b"2"}, 1.5, 0.0),
        (median, {"a": b"[1, 9]", "b": b"[2, 8]", "c": b"[3, 100]"}, [2.0, 9.0], 0.0),
    ],
)
def test_averages(combine, outputs: dict[str, bytes], output: object, confidence: float) -> None:
    combined = combine(MODELS, EQUAL, outputs)
    assert json.loads(combined.output) == output
    assert combined.confidence == pytest.approx(confidence)


def test_a_median_takes_weights() -> None:
    assert median(("a", "b", "c"), (0.6, 0.2, 0.2), {"a": b"1", "b": b"2", "c": b"3"}).output == b"1.0"
    assert median(("a", "b", "c"), (0.5, 0.25, 0.25), {"a": b"1", "b": b"2", "c": b"3"}).output == b"1.5"


def test_tolerance_is_absolute_below_one_and_a_share_of_the_answer_above() -> None:
    outputs = {"a": b"0.30", "b": b"0.40"}
    assert make_combiner("mean", 0.06)(("a", "b"), (1, 1), outputs).confidence == 1.0
    assert make_combiner("mean", 0.04)(("a", "b"), (1, 1), outputs).confidence == 0.0
    outputs = {"a": b"300", "b": b"400"}
    assert make_combiner("mean", 0.2)(("a", "b"), (1, 1), outputs).confidence == 1.0
    assert make_combiner("mean", 0.1)(("a", "b"), (1, 1), outputs).confidence == 0.0


@given(outputs_of(labels | numbers), weights, st.sampled_from(COMBINERS), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(outputs, weights, name: str, random: Random) -> None:
    arrived = list(outputs.items())
    random.shuffle(arrived)
    combine = make_combiner(name)
    assert combine(MODELS, weights, outputs) == combine(MODELS, weights, dict(arrived))


@given(outputs_of(labels | numbers), weights, st.sampled_from(COMBINERS))
def test_confidence_is_a_share_and_never_that_of_missing_models(outputs, weights, name: str) -> None:
    combined = make_combiner(name)(MODELS, weights, outputs)
    json.loads(combined.output)
    assert 0.0 <= combined.confidence <= 1.0
    if any(weights[MODELS.index(model)] > 0 for model in outputs):
        present = sum(weights[MODELS.index(model)] for model in outputs) / sum(weights)
        assert combined.confidence <= present * (1 + 1e-9)


@given(outputs_of(labels), weights)
def test_the_order_of_models_decides_between_equals_only(outputs, weights) -> None:
    forward = vote(MODELS, weights, outputs)
    backward = vote(MODELS[::-1], weights[::-1], outputs)
    assert forward.confidence == pytest.approx(backward.confidence)


@given(outputs_of(numbers), weights, st.sampled_from([mean, median]))
def test_an_average_lies_within_what_it_is_of(outputs, weights, combine) -> None:
    found = [json.loads(text) for text in outputs.values()]
    answer = json.loads(combine(MODELS, weights, outputs).output)
    slack = 1e-12 * max(map(abs, found))
    assert min(found) - slack <= answer <= max(found) + slack


@given(numbers | labels, weights)
def test_models_that_all_agree_are_certain(output: bytes, weights) -> None:
    combined = vote(MODELS, weights, dict.fromkeys(MODELS, output))
    assert combined.output == output
    assert combined.confidence == pytest.approx(1.0)


def test_parameters_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="answer is 'mode': expected one of vote, mean, median"):
        make_combiner("mode")
    with pytest.raises(InvalidArgument, match="tolerance is -1: expected a number at least 0"):
        make_combiner("mean", -1)


@given(outputs_of(labels), st.data(), weights, st.sets(st.sampled_from(MODELS)), st.sampled_from([0.0, 0.4, 0.5, 0.9]))
def test_a_settled_vote_is_not_changed_by_what_comes(outputs, data, weights, lost, threshold):
    lost = lost - outputs.keys()
    if not vote_is_settled(MODELS, weights, outputs, lost, threshold):
        return
    before = vote(MODELS, weights, outputs)
    coming = data.draw(st.dictionaries(st.sampled_from(MODELS), labels))
    more = {model: output for model, output in coming.items() if model not in lost} | outputs
    after = vote(MODELS, weights, more)
    assert value_key(after.output) == value_key(before.output)
    assert (after.confidence >= threshold) == (before.confidence >= threshold)


def test_a_vote_is_settled_as_soon_as_the_rest_cannot_turn_it():
    three = {"a": b"1", "b": b"1.0", "c": b"1"}
    assert vote_is_settled(MODELS, EQUAL, three, (), 0.0)
    assert not vote_is_settled(MODELS, EQUAL, {"a": b"1", "b": b"1"}, (), 0.0)
    assert vote_is_settled(MODELS, EQUAL, {"a": b"1", "b": b"1"}, ("c", "d"), 0.0)
    # Three fifths agree, and one more may.
    assert not vote_is_settled(MODELS, EQUAL, three | {"d": b"2"}, (), 0.7)
    assert vote_is_settled(MODELS, EQUAL, three | {"d": b"2"}, (), 0.6)
    assert vote_is_settled(MODELS, EQUAL, three | {"d": b"2"}, (), 0.9)
