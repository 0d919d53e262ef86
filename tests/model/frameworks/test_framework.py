from pathlib import Path

import numpy as np
import pytest

from clipper.errors import ContainerFailed, WrongInput
from clipper.model.frameworks.framework import (
    FrameworkSource,
    answered,
    chosen_answer,
    classifier_answers,
    named_inputs,
    regressor_answers,
    thread_count,
)


def source(output: str | None) -> FrameworkSource:
    return FrameworkSource(Path("m.onnx"), output=output)


def test_outputs_are_those_asked_for_or_the_default() -> None:
    assert source(None).names(["a", "b"], ["b"]) == ("b",)
    assert source("b, a").names(["a", "b"], ["b"]) == ("b", "a")


def test_an_unknown_output_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ContainerFailed, match=r"m\.onnx has no output c, d: it has a, b; deploy it with --output"):
        source("c,a,d").names(["a", "b"], [])


def test_one_output_is_answered_as_it_is_and_several_by_name() -> None:
    array = np.zeros((2, 3))
    assert answered({"a": array}) is array
    assert answered({"a": [1, 2], "b": ["x", "y"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_a_classifier_of_two_classes_and_of_more() -> None:
    two, three = np.array([0.25, 0.75]), np.array([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]])
    answers = classifier_answers()
    assert chosen_answer(source(None), answers)(two).tolist() == [0, 1]
    assert chosen_answer(source("probabilities"), answers)(two).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert chosen_answer(source("labels"), answers)(three).tolist() == [0, 2]
    assert chosen_answer(source("probabilities"), answers)(three) is three
    assert chosen_answer(source("labels,probabilities"), answers)(two[:1])[0]["labels"] == 0


def test_a_regressor_has_values_alone() -> None:
    assert chosen_answer(source("values"), regressor_answers())(np.array([1.5])).tolist() == [1.5]
    with pytest.raises(ContainerFailed, match="has no output labels: it has values"):
        chosen_answer(source("labels"), regressor_answers())


def test_named_inputs_are_objects_of_all_that_is_required() -> None:
    assert named_inputs(['{"a": 1, "b": [2]}'], ["a", "b"]) == [{"a": 1, "b": [2]}]
    assert named_inputs(['{"a": 1}'], ["a"], ["a", "b"]) == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"a": 1}', "got a"), ('{"a": 1, "b": 2, "c": 3}', "got a, b, c"), ("[1]", "got a list"), ("{", "Expecting")],
)
def test_named_inputs_that_are_something_else(text: str, says: str) -> None:
    with pytest.raises(WrongInput, match=f"the text of a JSON object with a, b: .*{says}"):
        named_inputs([text], ["a", "b"])


@pytest.mark.parametrize(("text", "threads"), [(None, 1), ("", 1), ("3", 3), ("0", 1), ("4,2", 1)])
def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, threads: int) -> None:
    if text is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == threads
