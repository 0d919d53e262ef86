"""MLflow's model folders, of any framework, served by their Python function."""

from collections.abc import Callable, Sequence
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas

from clipper.errors import ModelFailed
from clipper.model.frameworks.framework import VALUES, FrameworkModel, FrameworkSource, named_inputs
from clipper.model.model import Inputs
from clipper.values.types import DType, InputType

# Types of rows by numpy's names of MLflow's column and tensor types. Values of other types come in a JSON text.
_WIRE = {
    "bool": DType.BOOL,
    "uint8": DType.UINT8,
    "int32": DType.INT32,
    "int64": DType.INT64,
    "float32": DType.FLOAT32,
    "float64": DType.FLOAT64,
}

# Makes the model's argument from a batch of rows.
_Reader = Callable[[Inputs], Any]


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a folder. Raises ContainerFailed if its signature lacks the requested outputs."""
    model = mlflow.pyfunc.load_model(str(source.path))
    input_type, read = _takes(model.metadata.get_input_schema())
    named = _output_names(model.metadata.get_output_schema())
    names = source.names(named or [VALUES], named)

    def predict_batch(rows: Inputs) -> Any:
        return _answers(model.predict(read(rows)), names if named else ())

    flavor = model.metadata.flavors["python_function"]["loader_module"]
    return FrameworkModel(predict_batch, input_type, f"mlflow {mlflow.__version__} ({flavor})")


def _takes(schema: Any) -> tuple[InputType | None, _Reader]:
    """The input type of a query, and the function that makes the model's argument, from the signature's inputs."""
    if schema is None:
        return None, lambda rows: rows
    if schema.is_tensor_spec():
        return _takes_tensors(schema.inputs)
    return _takes_columns(schema.inputs)


def _takes_tensors(specs: Sequence[Any]) -> tuple[InputType, _Reader]:
    wire = _WIRE.get(specs[0].type.name)
    if len(specs) == 1 and wire is not None:
        name, dtype = specs[0].name, specs[0].type
        shape = tuple(None if size == -1 else size for size in specs[0].shape[1:])

        def read(rows: Inputs) -> Any:
            array = np.asarray(rows).astype(dtype, copy=False)
            return array if name is None else {name: array}

        return InputType(wire, shape), read
    types = {spec.name: spec.type for spec in specs}
    return InputType(DType.STRING), lambda rows: {
        name: np.array([row[name] for row in named_inputs(rows, list(types))], dtype) for name, dtype in types.items()
    }


def _takes_columns(specs: Sequence[Any]) -> tuple[InputType, _Reader]:
    names = [spec.name if spec.name is not None else index for index, spec in enumerate(specs)]
    types = [_numpy_name(spec) for spec in specs]
    if types == ["str"]:
        return InputType(DType.STRING), lambda rows: pandas.DataFrame({names[0]: list(rows)})
    if all(name in _WIRE for name in types):
        # With several number types, the one that can represent them all.
        wire = _WIRE[types[0]] if len(set(types)) == 1 else DType.FLOAT64
        return InputType(wire, (len(specs),)), lambda rows: _frame(rows, names, types)
    texts = [str(name) for name in names]
    required = [name for name, spec in zip(texts, specs) if spec.required]
    return InputType(DType.STRING), lambda rows: pandas.DataFrame(named_inputs(rows, required, texts), columns=texts)


def _numpy_name(spec: Any) -> str:
    """``float64``, ``str``; empty for arrays, objects and maps."""
    to_numpy = getattr(spec.type, "to_numpy", None)
    return "" if to_numpy is None else np.dtype(to_numpy()).name.removesuffix("_")


def _frame(rows: Inputs, names: Sequence[Any], types: Sequence[str]) -> Any:
    array = np.asarray(rows)
    return pandas.DataFrame(
        {name: array[:, index].astype(dtype) for index, (name, dtype) in enumerate(zip(names, types))}
    )


def _output_names(schema: Any) -> list[str]:
    return [] if schema is None else [spec.name for spec in schema.inputs if spec.name is not None]


def _answers(outputs: Any, names: Sequence[str]) -> Any:
    """Return the answers to a batch from the function's result: a frame, a series, an array, a list or a dict."""
    if isinstance(outputs, pandas.DataFrame):
        outputs = outputs.rename(columns=str)
    elif isinstance(outputs, dict):
        outputs = {str(name): value for name, value in outputs.items()}
    else:
        return outputs  # the runtime says what is wrong with it, if anything is
    absent = [name for name in names if name not in outputs]
    if absent:
        raise ModelFailed(
            f"the model returned {', '.join(outputs)}, without {', '.join(absent)}, which its signature declares"
        )
    chosen = list(names or outputs)
    return outputs[chosen[0]] if len(chosen) == 1 else {name: outputs[name] for name in chosen}
