from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import (
    FrameworkSource,
    answered,
    answered_type,
    chosen_answer,
    classifier_type,
    regressor_answers,
    score_answers,
    thread_count,
)
from clipper.values.types import DType, InputType


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
    both = {"a": [1, 2], "b": ["x", "y"]}
    assert answered(both) == both
    # One that has names itself adds these.
    assert answered({"a": [1, 2], "by_class": {"no": [0.2, 0.8], "yes": [0.8, 0.2]}}) == {
        "a": [1, 2],
        "no": [0.2, 0.8],
        "yes": [0.8, 0.2],
    }
    numbers, text = InputType(DType.FLOAT32, (3,)), InputType(DType.STRING)
    assert answered_type({"a": numbers}) == numbers
    assert str(answered_type({"a": numbers, "b c": text})) == 'a: float32[3], "b c": string'
    assert answered_type({"a": numbers, "b": None}) is None


def test_a_classifier_of_two_classes_and_of_more() -> None:
    two, three = np.array([0.25, 0.75]), np.array([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]])

    def chosen(output: str | None, scores: np.ndarray) -> Any:
        return chosen_answer(source(output), score_answers(3))[1](scores)

    assert chosen(None, two).tolist() == [0, 1]
    assert chosen("probabilities", two).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert chosen("labels", three).tolist() == [0, 2]
    assert chosen("probabilities", three) is three
    assert {name: each.tolist() for name, each in chosen("label,probabilities", two).items()} == {
        "label": [0, 1],
        "probabilities": [[0.75, 0.25], [0.25, 0.75]],
    }
    by_class = {"0": [0.5, 0.0], "1": [0.25, 0.25], "2": [0.25, 0.75]}
    assert {name: each.tolist() for name, each in chosen("class_probabilities", three).items()} == by_class
    assert list(chosen("label,class_probabilities", three)) == ["label", "0", "1", "2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["label"], "string"),
        (["probabilities"], "float32[2]"),
        (["label", "probabilities"], 'label: string{"ham", "spam"}, probabilities: float32[2]'),
        (["labels", "class_probabilities"], 'labels: string{"ham", "spam"}, ham: float32, spam: float32'),
        (["class_probabilities"], "ham: float32, spam: float32"),
        (["label", "depth"], "None"),
    ],
)
def test_the_type_of_a_classifiers_outputs_has_its_classes(names: list[str], expected: str) -> None:
    assert str(classifier_type(names, ["ham", "spam"], DType.STRING, DType.FLOAT32)) == expected


def test_a_classifier_of_very_many_classes_has_no_names_for_them() -> None:
    classes = range(1001)
    both = classifier_type(["label", "probabilities"], classes, DType.INT64, DType.FLOAT64)
    assert str(both) == "label: int64, probabilities: float64[1001]"
    assert classifier_type(["class_probabilities"], classes, DType.INT64, DType.FLOAT64) is None
    # Two fields of one name.
    assert classifier_type(["class_probabilities"], ["1", 1], DType.STRING, DType.FLOAT64) is None


def test_a_regressor_has_values_alone() -> None:
    assert chosen_answer(source("values"), regressor_answers())[1](np.array([1.5])).tolist() == [1.5]
    with pytest.raises(ContainerFailed, match="has no output labels: it has values"):
        chosen_answer(source("labels"), regressor_answers())


@pytest.mark.parametrize(("text", "threads"), [(None, 1), ("", 1), ("3", 3), ("0", 1), ("4,2", 1)])
def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, threads: int) -> None:
    if text is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == threads
