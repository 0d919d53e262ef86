"""The arguments and results of every framework's module."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed, InvalidArgument
from clipper.model.model import Array, Inputs
from clipper.values.records import MAX_FIELDS, Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# Outputs of a classifier: its class, by two names; the probabilities of the classes, in a list; and the probabilities
# by the classes' names.
LABEL, LABELS = "label", "labels"
PROBABILITIES = "probabilities"
CLASS_PROBABILITIES = "class_probabilities"
# The output of a model that is not a classifier and has no names for its outputs.
VALUES = "values"


@dataclass(frozen=True, slots=True)
class FrameworkSource:
    """The file or folder of a model, and its options.

    Attributes:
        path: the model file or folder.
        data: the second file of a model that has two.
        target: ``module:Class``, for a model that is a class and the state dict at ``path``.
        output: names of outputs with commas between, such as ``label,probabilities``; None means the model's own.
        input_type: the deployment's input type, or the type of its sample if that is a record, as text. Inputs come in
            this type, so convert them to the model's own; those of a record come in the types that the model says.
        has_gpu: whether a GPU is reserved for the model, which should compute on it.
        precision: ``fp16`` or ``bf16``, for the weights of a PyTorch network; None means the model's own.
    """

    path: Path
    data: Path | None = None
    target: str | None = None
    output: str | None = None
    input_type: str | None = None
    has_gpu: bool = False
    precision: str | None = None

    def names(self, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Return the requested outputs, else ``default``. Raises ContainerFailed if one is not ``known``."""
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
        predict_batch: returns outputs like that of ``ModelContainer``.
        input_type: None if the model's file does not say it. For a record, ``predict_batch`` takes columns of this
            type.
        library: the library that runs the model, with its version, such as ``onnxruntime 1.32.0``.
        max_batch: the largest batch that it takes; None means any.
        device: where it computes, as its library says, such as ``cuda (NVIDIA L4)``, or ``CPU``; empty if no GPU is
            reserved, or if that is not known.
    """

    predict_batch: Callable[[Inputs], object]
    input_type: ValueType | None
    library: str
    max_batch: int | None = None
    output_type: ValueType | None = None
    device: str = ""
    warning: str = ""


def answered(outputs: Mapping[str, Any]) -> Any:
    """Return the answer to a batch: the values of a single output, or several outputs by their names. An output that
    has names itself adds these.
    """
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    named: dict[str, Any] = {}
    for name, values in outputs.items():
        named |= values if isinstance(values, Mapping) else {name: values}
    return named


def answered_type(types: Mapping[str, InputType | None]) -> ValueType | None:
    """Return the type of the result of ``answered``; None if the type of an output is not known."""
    known = {name: of_type for name, of_type in types.items() if of_type is not None}
    if len(known) != len(types):
        return None
    try:
        return answered(known) if len(known) == 1 else RecordType(tuple(map(Field, known, known.values())))
    except InvalidArgument:
        return None


def classifier_answers(
    labels: Callable[[Any], Any], probabilities: Callable[[Any], Any], classes: Sequence[Any] | None
) -> dict[str, Callable[[Any], Any]]:
    """Return the possible outputs of a classifier, and the functions that answer them.

    Args:
        labels: returns the class of each row.
        probabilities: returns an array (rows, classes) for the same argument.
    """
    answers = {LABEL: labels, PROBABILITIES: probabilities}
    if classes is not None:
        names = list(map(str, classes))
        answers[CLASS_PROBABILITIES] = lambda given: dict(zip(names, np.asarray(probabilities(given)).T))
    return {**answers, LABELS: labels}


def score_answers(classes: int) -> dict[str, Callable[[Array], Any]]:
    """Return the same as ``classifier_answers`` for classes that are numbers from 0.

    The functions take scores (rows, classes), or (rows,) for the second of two classes.
    """
    return classifier_answers(_labels, _probabilities, range(classes))


def regressor_answers() -> dict[str, Callable[[Array], Any]]:
    return {VALUES: lambda values: values}


def classifier_type(names: Sequence[str], classes: Sequence[Any], label: DType, probability: DType) -> ValueType | None:
    """Return the type of these outputs of a classifier; None if a record has too many fields, or two of one name.

    In a record, the categories of the label are the classes, in the order of the probabilities: so clients know the
    class of each probability.

    Args:
        classes: texts, whole numbers, floats or booleans.
        label: the type of the classes.
        probability: the type of a probability.
    """
    categories = tuple(classes) if len(classes) <= MAX_FIELDS else ()
    fields: list[Field] = []
    for name in names:
        if name in (LABEL, LABELS):
            fields.append(Field(name, InputType(label, ()), categories=categories))
        elif name == PROBABILITIES:
            fields.append(Field(name, InputType(probability, (len(classes),))))
        elif name == CLASS_PROBABILITIES:
            fields += [Field(str(each), InputType(probability, ())) for each in classes]
        else:
            return None
    if len(names) == 1 and names[0] != CLASS_PROBABILITIES:
        return fields[0].type
    try:
        return RecordType(tuple(fields))
    except InvalidArgument:
        return None


def chosen_answer(
    source: FrameworkSource, answers: Mapping[str, Callable[[Any], Any]]
) -> tuple[tuple[str, ...], Callable[[Any], Any]]:
    """Return the names of the requested outputs, else the first, and their function. Raises ContainerFailed."""
    names = source.names(list(answers), list(answers)[:1])
    return names, lambda given: answered({name: answers[name](given) for name in names})


def _labels(scores: Array) -> Array:
    return (scores > 0.5).astype(int) if scores.ndim == 1 else np.asarray(scores.argmax(axis=1))


def _probabilities(scores: Array) -> Array:
    return np.stack((1 - scores, scores), axis=1) if scores.ndim == 1 else scores


def thread_count() -> int:
    """Return how many threads a model may use: ``OMP_NUM_THREADS``, or 1, as replicas are the unit of parallelism."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
