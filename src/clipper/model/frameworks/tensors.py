"""Converts Clipper's batches to the inputs that a network declares, and its outputs to answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed, ModelFailed
from clipper.model.frameworks.framework import (
    LABEL,
    LABELS,
    PROBABILITIES,
    FrameworkSource,
    answered,
    answered_type,
)
from clipper.model.model import Array, Inputs, Values
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# A batch's outputs by name: an array with a row for each input, or a list.
Outputs = Mapping[str, Array | list[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        dtype: the graph's own type, in numpy's names, or ``string``.
        shape: the lengths of the dimensions, the batch's first; None means any length.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The exact number of rows that a call takes; None means any number."""
        return self.shape[0]

    def input_type(self, declared: str | None) -> InputType:
        """Return the type of a row. ``declared``: the deployment's input type, by which texts may come as bytes. Raises
        ContainerFailed if no type of input fits the graph's.
        """
        if not self.shape:
            raise ContainerFailed(
                f"input {self.name!r} is a single value: expected a tensor whose first dimension is the batch"
            )
        if self.dtype == "string":
            return InputType(DType.BYTES if declared == DType.BYTES.label else DType.STRING)
        label = _COMPUTED_AS.get(self.dtype, self.dtype)
        if label not in _NUMERIC:
            raise ContainerFailed(f"input {self.name!r} is of {self.dtype}: expected {', '.join(_NUMERIC)} or string")
        return InputType(DType.parse(label), self.shape[1:])

    @property
    def row_type(self) -> InputType | None:
        """Return the type of a row of an output; None if no type of output fits."""
        label = _RETURNED_AS.get(self.dtype, self.dtype)
        if label not in _NUMERIC and (label != "string" or self.shape[1:]):
            return None
        return InputType(DType.parse(label), tuple(size or None for size in self.shape[1:]))


def type_of(tensors: Sequence[Tensor], declared: str | None) -> ValueType:
    """Return a row's type: that of a single input, or a record by their names. Raises ContainerFailed if none fits."""
    if len(tensors) == 1:
        return tensors[0].input_type(declared)
    return RecordType(tuple(Field(tensor.name, _of_one(tensor)) for tensor in tensors))


def _of_one(tensor: Tensor) -> InputType:
    found = tensor.input_type(None)
    # A column with a number for each row is a number.
    return InputType(found.dtype, ()) if found.shape == (1,) else found


def named(inputs: Inputs, tensors: Sequence[Tensor]) -> dict[str, Values]:
    """Return the batch of each tensor, in the shape that the graph has."""
    if not isinstance(inputs, dict):
        return {tensors[0].name: inputs}
    return {
        tensor.name: values.reshape(-1, 1) if isinstance(values, np.ndarray) and tensor.shape[1:] == (1,) else values
        for tensor, values in ((tensor, inputs[tensor.name]) for tensor in tensors)
    }


_NUMERIC = [dtype.label for dtype in DType if dtype.is_numeric]
# Types that queries do not have. Values come in a type that contains all of their numbers, and are converted.
_COMPUTED_AS = {"float16": "float32", "bfloat16": "float32", "half": "float32", "int8": "int32", "int16": "int32"}
# The same for outputs.
_RETURNED_AS = {**_COMPUTED_AS, "uint16": "int32", "uint32": "int64"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers a part of a network's outputs.

    Attributes:
        labels: whether to answer the index of each row's largest score.
        names: the names of the requested outputs; empty means all.
    """

    labels: bool = False
    names: tuple[str, ...] = ()

    @staticmethod
    def of(source: FrameworkSource, known: Sequence[str] = ()) -> "Answer":
        """Return the answer that the deployment requests. ``known``: the names of all outputs, if the network says them
        before it is called. Raises ContainerFailed if the network lacks a requested output.
        """
        if source.output in (LABEL, LABELS) and source.output not in known:
            return Answer(labels=True)
        if source.output == PROBABILITIES and PROBABILITIES not in known:
            raise ContainerFailed(
                "a network does not say whether its outputs are probabilities: let it end in a softmax, and deploy it "
                "without --output to get its raw outputs"
            )
        # If the names are not known now, they are looked up in what the network returns.
        asked = [] if source.output is None else [name.strip() for name in source.output.split(",")]
        return Answer(names=source.names(known or asked, ()))

    def output_type(self, tensors: Sequence[Tensor], batch: int | None) -> ValueType | None:
        """Return the type of the answers; None if the network does not declare it.

        Args:
            tensors: all outputs that the network declares.
            batch: the exact number of rows of a call; None means any number.
        """
        if self.labels:
            return InputType(DType.INT64, ())
        declared = {tensor.name: tensor.row_type if tensor.shape[:1] == (batch,) else None for tensor in tensors}
        return answered_type({name: declared.get(name) for name in self.names or declared})

    def rows(self, outputs: Outputs) -> Any:
        """Return an answer for each row, or for each name. Raises ModelFailed if other outputs came than requested."""
        if self.labels:
            return labels_of(_only(outputs))
        for name in self.names:
            if name not in outputs:
                raise ModelFailed(f"the network returned no output {name}: it has {', '.join(outputs)}")
        return answered({name: outputs[name] for name in self.names or outputs})


def labels_of(scores: Array) -> Array:
    """Return the index of each row's largest score. Raises ModelFailed if each row has a single score."""
    flat = scores.reshape(len(scores), -1)
    if flat.shape[1] < 2:
        raise ModelFailed(
            "a label is the index of the largest of a row's scores, but each row has a single score: "
            "deploy without --output labels to get the score"
        )
    labels: Array = flat.argmax(axis=1)
    return labels


def _only(outputs: Outputs) -> Array:
    if len(outputs) != 1:
        raise ModelFailed(
            f"--output labels needs a network with one output, and this one has {', '.join(outputs)}: "
            "name some of these in --output instead"
        )
    return np.asarray(next(iter(outputs.values())))


def in_batches_of(size: int | None, predict_batch: Callable[[Inputs], Any]) -> Callable[[Inputs], Any]:
    """Wrap ``predict_batch`` to get exactly ``size`` rows, the last repeated; None leaves it unchanged."""
    if size is None:
        return predict_batch

    def padded(inputs: Inputs) -> Any:
        if isinstance(inputs, dict):
            rows = len(next(iter(inputs.values())))
            outputs = predict_batch({name: _padded(values, size) for name, values in inputs.items()})
        else:
            rows, outputs = len(inputs), predict_batch(_padded(inputs, size))
        if isinstance(outputs, Mapping):
            return {name: values[:rows] for name, values in outputs.items()}
        return outputs[:rows]

    return padded


def _padded(values: Values, size: int) -> Values:
    missing = size - len(values)
    if isinstance(values, list):
        return [*values, *[values[-1]] * missing]
    return np.concatenate([values, values[-1:].repeat(missing, axis=0)])


def texts(array: Array) -> Array:
    """Convert tensors of bytes, in which strings come, to texts; return other tensors unchanged."""
    if array.dtype != object:
        return array
    plain = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in array.ravel()]
    return np.array(plain, dtype=object).reshape(array.shape)
