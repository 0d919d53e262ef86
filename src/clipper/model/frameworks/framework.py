"""The arguments and results of every framework's module."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed, WrongInput
from clipper.model.model import Array, Inputs
from clipper.values.records import ValueType

LABELS = "labels"
PROBABILITIES = "probabilities"
# The output of a model that is not a classifier and has no names for its outputs.
VALUES = "values"


@dataclass(frozen=True, slots=True)
class FrameworkSource:
    """The file or folder of a model, and its options.

    Attributes:
        path: the model file or folder.
        data: the second file of a model that has two.
        target: ``module:Class``, for a model that is a class and the state dict at ``path``.
        output: ``labels``, ``probabilities``, or names of outputs with commas between; None means the model's own.
        input_type: text form, if the deployment says it, or the record that its sample is. Inputs come in this type, so
            convert them to the model's own; those of a record come in the types that the model says.
    """

    path: Path
    data: Path | None = None
    target: str | None = None
    output: str | None = None
    input_type: str | None = None

    def names(self, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Return the requested outputs, or ``default`` if none are requested.

        Raises:
            ContainerFailed: a requested output is not ``known``.
        """
        names = tuple(default) if self.output is None else tuple(name.strip() for name in self.output.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ContainerFailed(
                f"{self.path.name} has no output {', '.join(unknown)}: it has {', '.join(known)}; "
                "deploy it with --output and one or more of these, or without --output"
            )
        return names


@dataclass(frozen=True, slots=True)
class FrameworkModel:
    """A loaded model.

    Attributes:
        predict_batch: returns one output for each input, like that of ``ModelContainer``.
        input_type: None if the model's file does not say it. Of a record, ``predict_batch`` takes columns of this type.
        library: the library that runs the model, with its version, e.g. ``onnxruntime 1.32.0``.
        max_batch: the largest batch that it takes; None means any.
        output_type: the type of its outputs, if it says so.
    """

    predict_batch: Callable[[Inputs], object]
    input_type: ValueType | None
    library: str
    max_batch: int | None = None
    output_type: ValueType | None = None


def answered(outputs: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Return one answer for each row: the value of a single output, or an object ``{name: value}`` of several."""
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return [dict(zip(outputs, row)) for row in zip(*outputs.values())]


def named_inputs(rows: Inputs, required: Sequence[str], known: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read the inputs of a model that takes several: each row is the text of a JSON object of inputs by name.

    Args:
        known: the names of all inputs, if some may be absent.

    Raises:
        WrongInput: a row is not such an object.
    """
    return [_named_input(str(row), set(required), set(known or required)) for row in rows]


def _named_input(text: str, required: set[str], known: set[str]) -> dict[str, Any]:
    expected = f"the model takes the text of a JSON object with {', '.join(sorted(map(str, known)))}"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise WrongInput(f"{expected}: {error}") from error
    if not isinstance(values, dict) or not required <= values.keys() <= known:
        got = ", ".join(sorted(values)) if isinstance(values, dict) else f"a {type(values).__name__}"
        raise WrongInput(f"{expected}: got {got or 'an empty object'}")
    return values


def classifier_answers() -> dict[str, Callable[[Array], Any]]:
    """Convert a classifier's probabilities, which are (rows, classes), or (rows,) for the second of two classes."""
    return {LABELS: _labels, PROBABILITIES: _probabilities}


def regressor_answers() -> dict[str, Callable[[Array], Any]]:
    return {VALUES: lambda values: values}


def chosen_answer(source: FrameworkSource, answers: Mapping[str, Callable[[Array], Any]]) -> Callable[[Array], Any]:
    """Return the requested output, or else the first.

    Raises:
        ContainerFailed: the requested output is not known.
    """
    names = source.names(list(answers), list(answers)[:1])
    if len(names) > 1:
        return lambda scores: answered({name: answers[name](scores) for name in names})
    return answers[names[0]]


def _labels(scores: Array) -> Array:
    return (scores > 0.5).astype(int) if scores.ndim == 1 else np.asarray(scores.argmax(axis=1))


def _probabilities(scores: Array) -> Array:
    return np.stack((1 - scores, scores), axis=1) if scores.ndim == 1 else scores


def thread_count() -> int:
    """Return how many threads a model may use: ``OMP_NUM_THREADS``, or 1, as replicas are the unit of parallelism."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
