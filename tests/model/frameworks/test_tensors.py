"""The code that networks of all frameworks share, without any of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper.errors import ContainerFailed, ModelFailed
from clipper.model.frameworks.framework import FrameworkSource
from clipper.model.frameworks.tensors import Answer, Tensor, in_batches_of, labels_of, texts

SCORES = np.array([[0.1, 0.9], [0.8, 0.2]])


def source(output: str | None) -> FrameworkSource:
    return FrameworkSource(Path("net"), output=output)


@pytest.mark.parametrize(
    ("dtype", "shape", "declared", "expected"),
    [
        ("float32", (None, 3, None), None, "float32[3,*]"),
        ("float16", (4, 2), None, "float32[2]"),
        ("int8", (None,), "float64[]", "int32[]"),
        ("string", (None, 1), None, "string"),
        ("string", (None,), "bytes", "bytes"),
    ],
)
def test_what_a_tensor_takes(dtype: str, shape: tuple[int | None, ...], declared: str | None, expected: str) -> None:
    assert str(Tensor("x", dtype, shape).input_type(declared)) == expected


def test_a_tensor_that_no_input_is() -> None:
    with pytest.raises(ContainerFailed, match="input 'x' is of complex64: expected int32"):
        Tensor("x", "complex64", (None, 2)).input_type(None)
    with pytest.raises(ContainerFailed, match="input 'x' is a single value"):
        Tensor("x", "float32", ()).input_type(None)


def test_one_output_is_answered_as_it_is_and_several_by_name() -> None:
    assert Answer.of(source(None)).rows({"a": SCORES}) is SCORES
    outputs = {"a": SCORES, "b": [[1], [2, 3]]}
    assert Answer.of(source(None)).rows(outputs) == outputs
    assert list(Answer.of(source("b,a")).rows(outputs)) == ["b", "a"]
    assert Answer.of(source("b")).rows({"a": SCORES, "b": [[1], []]}) == [[1], []]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, "None"),
        ("scores", "float32[10]"),
        ("words,scores", "words: string, scores: float32[10]"),
        ("small", "int32[*,2]"),
        ("total", "None"),
        ("labels", "int64[]"),
        ("label", "int64[]"),
    ],
)
def test_what_a_network_answers(output: str | None, expected: str) -> None:
    shapes = {"scores": ("float16", (None, 10)), "words": ("string", (None,)), "small": ("int8", (None, None, 2))}
    # One value for the whole batch, and a type that no output is.
    tensors = [
        Tensor(name, *form) for name, form in {**shapes, "total": ("float32", ()), "z": ("complex64", (None,))}.items()
    ]
    answer = Answer.of(source(output), [] if output in ("labels", "label") else [tensor.name for tensor in tensors])
    assert str(answer.output_type(tensors, None)) == expected


def test_labels_are_the_places_of_the_greatest() -> None:
    assert np.asarray(Answer.of(source("labels")).rows({"a": SCORES[:, :, None]})).tolist() == [1, 0]
    with pytest.raises(ModelFailed, match="each row has a single score"):
        labels_of(SCORES[:, :1])


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_an_output_may_have_any_name(output: str) -> None:
    assert Answer.of(source(output), [output, "b"]).rows({output: SCORES, "b": SCORES}) is SCORES


def test_batches_of_one_size() -> None:
    seen = []

    def keep(inputs: Any) -> Any:
        seen.append(inputs)
        return inputs

    assert in_batches_of(3, keep)(["a", "b"]) == ["a", "b"]
    assert in_batches_of(3, keep)(SCORES).tolist() == SCORES.tolist()
    assert seen[0] == ["a", "b", "b"]
    assert seen[1].tolist() == [*SCORES.tolist(), SCORES[1].tolist()]
    assert in_batches_of(None, keep) is keep
    assert in_batches_of(3, lambda inputs: {"a": inputs, "b": [1, 2, 3]})(["x"]) == {"a": ["x"], "b": [1]}


def test_bytes_are_texts() -> None:
    assert texts(np.array([[b"n\xc3\xa9"], [b"\xff"]], object)).tolist() == [["né"], ["\ufffd"]]
    assert texts(SCORES) is SCORES
