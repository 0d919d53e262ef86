"""Between Clipper's batches and networks: what a graph says that it takes, and what is answered of its outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed, ModelFailed
from clipper.runtime.frameworks.framework import LABELS, PROBABILITIES, FrameworkSource, answered
from clipper.runtime.model import Array, Inputs
from clipper.types import DType, InputType

# A batch's outputs by name: an array of one row an input, or a list.
Outputs = Mapping[str, Array | list[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of a graph.

    Attributes:
        dtype: what the graph computes with, in numpy's names, or ``string``.
        shape: the batch's dimension first; None where any length will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def fixed_batch(self) -> int | None:
        """How many rows a call takes, no more and no less; None if any number will do."""
        return self.shape[0]

    def input_type(self, declared: str | None) -> InputType:
        """Return what one row of it is.

        Args:
            declared: the deployment's input type: texts may come as bytes.

        Raises:
            ContainerFailed: the graph takes what no input of Clipper is.
        """
        if not self.shape:
            raise ContainerFailed(f"input {self.name!r} is one value: expected its first dimension to be the batch")
        if self.dtype == "string":
            return InputType(DType.BYTES if declared == DType.BYTES.label else DType.STRING)
        label = _COMPUTED_AS.get(self.dtype, self.dtype)
        if label not in _NUMERIC:
            raise ContainerFailed(f"input {self.name!r} is of {self.dtype}: expected {', '.join(_NUMERIC)} or string")
        return InputType(DType.parse(label), self.shape[1:])


_NUMERIC = [dtype.label for dtype in DType if dtype.is_numeric]
# Types that no query carries; the graph gets its own from one that holds all of their values.
_COMPUTED_AS = {"float16": "float32", "bfloat16": "float32", "half": "float32", "int8": "int32", "int16": "int32"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered of a network's outputs.

    Attributes:
        labels: the index of each row's greatest score.
        names: of the outputs, where some were asked for; else all that there are.
    """

    labels: bool = False
    names: tuple[str, ...] = ()

    @staticmethod
    def of(source: FrameworkSource, known: Sequence[str] = ()) -> "Answer":
        """Return what the deployment asks for.

        Args:
            known: the names of all outputs, where the network tells them before it is called.

        Raises:
            ContainerFailed: the network does not have it.
        """
        if source.output == LABELS and LABELS not in known:
            return Answer(labels=True)
        if source.output == PROBABILITIES and PROBABILITIES not in known:
            raise ContainerFailed(
                "a network does not say whether its outputs are probabilities: let it end in a softmax, and deploy it "
                "without --output to be answered what it returns"
            )
        # What it cannot tell now is looked for in what it returns.
        return Answer(names=source.names(known or _named(source), ()))

    def rows(self, outputs: Outputs) -> Array | Sequence[Any]:
        """Return one answer a row: a value, or where there are several outputs an object of their names.

        Raises:
            ModelFailed: the outputs are not what was asked for.
        """
        if self.labels:
            return labels_of(_only(outputs))
        chosen = {name: _returned(name, outputs) for name in self.names or outputs}
        # One array becomes text faster as it is.
        if len(chosen) == 1:
            return next(iter(chosen.values()))
        return answered({name: _listed(rows) for name, rows in chosen.items()})


def labels_of(scores: Array) -> Array:
    """Return the index of each row's greatest score.

    Raises:
        ModelFailed: there is one score a row.
    """
    flat = scores.reshape(len(scores), -1)
    if flat.shape[1] < 2:
        raise ModelFailed(
            "a label is the index of the greatest of a row's scores, and there is one score a row: "
            "deploy without --output labels to be answered the score"
        )
    labels: Array = flat.argmax(axis=1)
    return labels


def _named(source: FrameworkSource) -> Sequence[str]:
    return () if source.output is None else [name.strip() for name in source.output.split(",")]


def _returned(name: str, outputs: Outputs) -> Array | list[Any]:
    if name not in outputs:
        raise ModelFailed(f"the network returned no output {name}: it has {', '.join(outputs)}")
    return outputs[name]


def _listed(rows: Array | list[Any]) -> list[Any]:
    return rows if isinstance(rows, list) else rows.tolist()


def _only(outputs: Outputs) -> Array:
    if len(outputs) != 1:
        raise ModelFailed(f"labels are of one output, and the network has {', '.join(outputs)}: name some instead")
    return np.asarray(next(iter(outputs.values())))


def in_batches_of(size: int | None, predict_batch: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    """Return what gives ``predict_batch`` always ``size`` rows, the last one repeated; None: as many as there are."""
    if size is None:
        return predict_batch

    def padded(inputs: Inputs) -> Any:
        missing = size - len(inputs)
        if isinstance(inputs, list):
            return predict_batch([*inputs, *[inputs[-1]] * missing])[: len(inputs)]
        return predict_batch(np.concatenate([inputs, inputs[-1:].repeat(missing, axis=0)]))[: len(inputs)]

    return padded


def texts(array: Array) -> Array:
    """Return tensors of bytes, which is how strings come, as text; others as they are."""
    if array.dtype != object:
        return array
    return np.array([_text(each) for each in array.ravel()], dtype=object).reshape(array.shape)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
