"""The probability that an output states for its answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.losses import ZeroOne
from clipper.learning.mathematics.probabilities import MAX_TEXT_BYTES, read_claim


@pytest.mark.parametrize(
    ("output", "label", "probability"),
    [
        ("[0.1,0.7,0.2]", 1, 0.7),
        ("[0.5,0.5]", 0, 0.5),  # the first of equals
        ("[0,1]", 1, 1.0),
        ("[0.333,0.333,0.333]", 0, 0.333),  # rounded
        ("[1.0000001,0]", 0, 1.0),  # of single precision
        ("[0.5,0.4901]", 0, 0.5),  # just near enough to a sum of 1
        ("[0.5,0.5" + " " * (MAX_TEXT_BYTES - 9) + "]", 0, 0.5),  # just short enough
        ('{"cat":0.2,"dog":0.8}', "dog", 0.8),
        ('{"label":"cat","probability":0.9}', "cat", 0.9),
        ('{"label":3,"probability":1.0000001}', 3, 1.0),
        ('{"label":7,"confidence":0.6,"took_ms":3}', 7, 0.6),
        ('{"label":0,"score":1.0}', 0, 1.0),  # not the probabilities of labels named label and score
        ('{"label":[1,2],"score":0.5}', [1, 2], 0.5),
        ('{"label":3,"probabilities":[0.2,0.8]}', 3, 0.8),
        ('{"label":"b","probabilities":{"a":0.4,"b":0.6}}', "b", 0.6),
    ],
)
def test_reads_what_says_how_sure_it_is(output: str, label: Any, probability: float) -> None:
    claim = read_claim(output.encode())
    assert claim is not None
    assert (claim.label, claim.probability) == (label, probability)


@pytest.mark.parametrize(
    "output",
    [
        "7",
        "0.7",
        '"cat"',
        "true",
        "null",
        "",
        "[",
        "[]",
        "{}",
        "[1.0]",  # one class is no choice
        "[0.2,0.2]",
        "[0.5,0.4899]",
        "[0.5,0.5101]",
        "[1.000002,0]",
        "[-0.000001,1]",
        "[2,-1]",
        "[true,false]",
        '[0.5,"0.5"]',
        "[[0.5,0.5]]",
        "[0.5,null]",
        '{"label":3}',
        '{"label":3,"score":7.1}',
        '{"label":3,"score":true}',
        '{"label":3,"probabilities":[7,1]}',
        '{"cat":0.2,"dog":1.8}',
        '{"cat":1.0}',
        "[1e999,0]",
        "[" + "1" + "0" * 400 + ",0]",
        "[" * 10_000,
        "[0.5,0.5" + " " * MAX_TEXT_BYTES + "]",
    ],
)
def test_anything_else_says_nothing(output: str) -> None:
    assert read_claim(output.encode()) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50).filter(lambda weights: sum(weights) > 1e-3))
def test_probabilities_decide_for_the_largest(weights: list[float]) -> None:
    total = sum(weights)
    numbers = [weight / total for weight in weights]
    claim = read_claim(json.dumps(numbers).encode())
    assert claim is not None
    assert claim.probability == min(max(numbers), 1.0)
    assert claim.label == numbers.index(max(numbers))


@pytest.mark.parametrize(
    ("output", "label", "loss"),
    [
        ("[0.1,0.9]", "1", 0.0),
        ("[0.1,0.9]", "1.0", 0.0),
        ("[0.1,0.9]", "true", 0.0),
        ("[0.1,0.9]", "0", 1.0),
        ("[0.1,0.9]", '"1"', 1.0),
        ("[0.1,0.9]", "[0.1,0.9]", 0.0),
        ("[0.1,0.9]", "[0.9,0.1]", 1.0),
        ('{"cat":0.2,"dog":0.8}', '"dog"', 0.0),
        ('{"cat":0.2,"dog":0.8}', '"cat"', 1.0),
        ('{"0":0.2,"1":0.8}', "1", 0.0),
        ('{"0":0.2,"1":0.8}', "null", 1.0),
        ('{"label":7,"score":0.6}', "7", 0.0),
        ('{"label":7,"score":0.6}', "7.0", 0.0),
        ('{"label":true,"score":0.6}', "1", 1.0),
        ('{"label":"a","score":0.6}', '"a"', 0.0),
        ('{"label":"a","score":0.6}', '"b"', 1.0),
        ("7", "7", 0.0),
        ("7", "[0.1,0.9]", 1.0),
    ],
)
def test_zero_one_compares_what_probabilities_decide_for(output: str, label: str, loss: float) -> None:
    assert ZeroOne()(output.encode(), label.encode()) == loss
