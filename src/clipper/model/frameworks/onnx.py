"""ONNX graphs, run by onnxruntime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from clipper.errors import ContainerFailed, ModelFailed
from clipper.model.frameworks.framework import (
    CLASS_PROBABILITIES,
    LABEL,
    LABELS,
    PROBABILITIES,
    FrameworkModel,
    FrameworkSource,
    answered,
    answered_type,
    classifier_type,
    thread_count,
)
from clipper.model.model import Array, Inputs, Values
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import CPU, DType, InputType, Shape

# Numpy's type and the type of queries for each element type of a graph: JSON has no half-precision or small numbers.
_ELEMENTS: dict[str, tuple[str, DType]] = {
    "float16": ("float16", DType.FLOAT32),
    "float": ("float32", DType.FLOAT32),
    "double": ("float64", DType.FLOAT64),
    "int8": ("int8", DType.INT32),
    "int16": ("int16", DType.INT32),
    "int32": ("int32", DType.INT32),
    "int64": ("int64", DType.INT64),
    "uint8": ("uint8", DType.UINT8),
    "uint16": ("uint16", DType.INT32),
    "uint32": ("uint32", DType.INT64),
    "uint64": ("uint64", DType.INT64),
    "bool": ("bool", DType.BOOL),
    "string": ("object", DType.STRING),
}
_FLOATING = ("tensor(float16)", "tensor(float)", "tensor(double)")
_LABELLING = ("tensor(int64)", "tensor(string)")

# The providers that compute on a GPU, in the order in which they are tried, and what they call it.
_OF_GPUS = {"CUDAExecutionProvider": "cuda", "MIGraphXExecutionProvider": "rocm", "ROCMExecutionProvider": "rocm"}

# The form in which a graph takes rows. stacked: along a first dimension of any length. single: along a first dimension
# of length 1. whole: without such a dimension, so that a row is the whole input.
_Batching = Literal["stacked", "single", "whole"]


@dataclass(frozen=True, slots=True)
class _Input:
    """An input of the graph. ``shape`` includes the batch's dimension, and has None for a dimension of any length."""

    name: str
    element: str
    wire: DType
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Output:
    """An answer that can be requested: an output of the graph, its conversion, and the type of a row, if known."""

    name: str
    convert: Callable[[Any], Any]
    type: InputType | None = None


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a graph. Raises ContainerFailed if no query can bring its inputs, or it lacks the requested outputs."""
    # A folder has one graph and the files of its weights.
    path = next(source.path.glob("*.onnx")) if source.path.is_dir() else source.path
    session = _session(path, has_gpu=source.has_gpu)
    inputs = [_input(node) for node in session.get_inputs()]
    batching = _batching_of(inputs)
    nodes = session.get_outputs()
    classes = _mapped_classes(session, inputs, nodes)
    outputs, default = _outputs(nodes, batching, classes)
    chosen = {name: outputs[name] for name in source.names(list(outputs), default)}
    read = _reader(inputs, batching)
    names = [output.name for output in chosen.values()]

    def predict_batch(rows: Inputs) -> Any:
        values = session.run(names, read(rows))
        count = len(next(iter(rows.values()))) if isinstance(rows, dict) else len(rows)
        split = (_split(value, name, batching, count) for name, value in zip(names, values))
        return answered({name: output.convert(value) for (name, output), value in zip(chosen.items(), split)})

    return FrameworkModel(
        predict_batch,
        _input_type(inputs, batching),
        f"onnxruntime {onnxruntime.__version__}",
        None if batching == "stacked" else 1,
        _output_type(session, inputs, chosen, batching, classes),
        # The session has left out the providers that cannot start.
        _OF_GPUS.get(session.get_providers()[0], CPU) if source.has_gpu else "",
    )


def _session(path: Path, *, has_gpu: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.inter_op_num_threads = 1
    available = onnxruntime.get_available_providers()
    # TensorRT would build an engine for minutes at each start, so it is not taken.
    of_gpus = [name for name in _OF_GPUS if name in available] if has_gpu else []
    return onnxruntime.InferenceSession(str(path), options, providers=[*of_gpus, "CPUExecutionProvider"])


def _input(node: Any) -> _Input:
    element = str(node.type).removeprefix("tensor(").removesuffix(")")
    if element not in _ELEMENTS:
        raise ContainerFailed(
            f"the graph's input {node.name} is a {node.type}, which no query can bring: expected a tensor of "
            f"{', '.join(_ELEMENTS)}"
        )
    name, wire = _ELEMENTS[element]
    # A dimension of any length is a name or None.
    return _Input(node.name, name, wire, tuple(size if isinstance(size, int) else None for size in node.shape))


def _batching_of(inputs: Sequence[_Input]) -> _Batching:
    if all(one.shape and one.shape[0] is None for one in inputs):
        return "stacked"
    # For a graph that takes a list of one number, a row is the number itself.
    return "single" if all(len(one.shape) > 1 and one.shape[0] == 1 for one in inputs) else "whole"


def _input_type(inputs: Sequence[_Input], batching: _Batching) -> ValueType:
    """Return the type of a row: for a single input its own, for several inputs a record with their names."""
    if len(inputs) == 1:
        return _type_of(inputs[0], batching)
    types = [_type_of(one, batching) for one in inputs]
    # A column with a number for each row is a number.
    return RecordType(
        tuple(
            Field(one.name, InputType(of_type.dtype, ()) if _is_column(one, batching) else of_type)
            for one, of_type in zip(inputs, types)
        )
    )


def _type_of(one: _Input, batching: _Batching) -> InputType:
    shape = one.shape if batching == "whole" else one.shape[1:]
    if one.wire is DType.STRING and any(size not in (1, None) for size in shape):
        raise ContainerFailed(
            f"the graph's input {one.name} takes texts of shape {list(shape)} for each row: expected one text for each"
        )
    return InputType(one.wire, shape)


def _is_column(one: _Input, batching: _Batching) -> bool:
    return batching != "whole" and one.shape[1:] == (1,)


def _reader(inputs: Sequence[_Input], batching: _Batching) -> Callable[[Inputs], dict[str, Array]]:
    if len(inputs) == 1:
        (one,) = inputs
        return lambda rows: {one.name: _tensor(one, rows, batching)}  # type: ignore[arg-type]  # it takes no record
    return lambda rows: {one.name: _tensor(one, rows[one.name], batching) for one in inputs}  # type: ignore[call-overload]


def _tensor(one: _Input, values: Values, batching: _Batching) -> Array:
    if one.wire is DType.STRING:
        sizes = (1,) * (len(one.shape) if batching == "whole" else len(one.shape) - 1)
        return _whole(np.array(values, object).reshape(-1, *sizes), batching)
    array = np.asarray(values).astype(one.element, copy=False)
    return _whole(array.reshape(-1, 1) if _is_column(one, batching) else array, batching)


def _whole(rows: Array, batching: _Batching) -> Array:
    return rows.reshape(rows.shape[1:]) if batching == "whole" else rows


def _outputs(nodes: Sequence[Any], batching: _Batching, classes: Sequence[Any]) -> tuple[dict[str, _Output], list[str]]:
    """Return the answers that can be requested, by name, and the default. ``classes``: those of maps, if known."""
    known = {node.name: _Output(node.name, _with_texts, _row_type(node, batching)) for node in nodes}
    if _is_classifier(nodes):
        labels, probabilities = (known[node.name] for node in nodes)
        if classes:
            known[CLASS_PROBABILITIES] = _Output(
                probabilities.name, lambda maps: dict(zip(map(str, classes), _matrix(maps, classes).T))
            )
            probabilities = _Output(probabilities.name, lambda maps: _matrix(maps, classes))
        return known | {LABELS: labels, LABEL: labels, PROBABILITIES: probabilities}, [LABELS]
    if len(nodes) == 1 and nodes[0].type in _FLOATING and len(nodes[0].shape) > 1:
        scores = known[nodes[0].name]
        of_type = None if scores.type is None else InputType(DType.INT64, scores.type.shape[:-1])
        largest = _Output(scores.name, lambda values: np.asarray(np.asarray(values).argmax(axis=-1)), of_type)
        return known | {LABELS: largest, LABEL: largest}, list(known)[:1]
    return known, list(known)


def _row_type(node: Any, batching: _Batching) -> InputType | None:
    """Return the type of a row of an output; None if the graph does not say it, or no type of output fits."""
    element = str(node.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    # A graph has the same shape for a number as for an output of any number of dimensions.
    if element not in _ELEMENTS or not shape:
        return None
    is_row = batching == "whole" or (batching == "single" and shape[0] != 1)
    shape, wire = shape if is_row else shape[1:], _ELEMENTS[element][1]
    return None if wire is DType.STRING and shape else InputType(wire, shape)


def _zeros(inputs: Sequence[_Input]) -> dict[str, Array]:
    """Return an input of zeros, or of empty texts, to try a graph with."""
    zeros = {one.name: np.zeros([size or 1 for size in one.shape], one.element) for one in inputs}
    for one in inputs:
        if one.wire is DType.STRING:
            zeros[one.name].fill("")
    return zeros


def _mapped_classes(session: Any, inputs: Sequence[_Input], nodes: Sequence[Any]) -> list[Any]:
    """Return the classes of a converted classifier that answers maps, as by default; none if it cannot be tried."""
    if not _is_classifier(nodes) or not nodes[1].type.startswith("seq(map(") or _batching_of(inputs) == "whole":
        return []
    try:
        ((row, *_),) = session.run([nodes[1].name], _zeros(inputs))
    except Exception:  # noqa: BLE001  as in ``_output_type``
        return []
    return list(row)


def _matrix(maps: Sequence[Mapping[Any, float]], classes: Sequence[Any]) -> Array:
    return np.array([[row[each] for each in classes] for row in maps], np.float32)


def _output_type(
    session: Any,
    inputs: Sequence[_Input],
    chosen: Mapping[str, _Output],
    batching: _Batching,
    classes: Sequence[Any],
) -> ValueType | None:
    """Return the type of the chosen outputs, if the graph says it and keeps it when it is tried with zeros.

    Converters write shapes that a graph does not keep, and every answer would fail by such a type.
    """
    if classes:
        dtype = DType.STRING if isinstance(classes[0], str) else DType.INT64
        return classifier_type(list(chosen), classes, dtype, DType.FLOAT32)
    of_type = answered_type({name: output.type for name, output in chosen.items()})
    if of_type is None:
        return None
    try:
        values = session.run([output.name for output in chosen.values()], _zeros(inputs))
        rows = [
            np.asarray(output.convert(_split(value, name, batching, 1))[0])
            for (name, output), value in zip(chosen.items(), values)
        ]
    except Exception:  # noqa: BLE001  zeros, or sizes of 1, need not be inputs of the model
        return None
    types = (output.type for output in chosen.values())
    is_kept = all(
        each is not None
        and len(each.shape) == row.ndim
        and all(want in (None, size) for want, size in zip(each.shape, row.shape))
        for each, row in zip(types, rows)
    )
    return of_type if is_kept else None


def _with_texts(value: Any) -> Any:
    """Return an output with texts as the names of maps, which some converters make of probabilities."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{str(name): number for name, number in row.items()} for row in value]
    return value


def _is_classifier(nodes: Sequence[Any]) -> bool:
    """Whether the outputs are those of a converted classifier: its labels, and its probabilities."""
    return len(nodes) == 2 and nodes[0].type in _LABELLING and "probabilit" in nodes[1].name.lower()


def _split(value: Any, name: str, batching: _Batching, rows: int) -> Any:
    """Split a graph's output into a value for each row."""
    # A graph that takes a single row may return its output without the batch's dimension.
    if batching == "whole" or (batching == "single" and np.shape(value)[:1] != (1,)):
        return [value]
    if not isinstance(value, Mapping) and len(value) == rows:
        return value
    raise ModelFailed(
        f"output {name} has shape {list(np.shape(value))} for {rows} inputs: expected one value for each input; "
        "choose other outputs with --output"
    )
