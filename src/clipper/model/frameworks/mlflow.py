"""MLflow's model folders, of any framework, served by their Python function."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas

from clipper.errors import ModelFailed
from clipper.model.frameworks.frames import framing
from clipper.model.frameworks.framework import VALUES, FrameworkModel, FrameworkSource
from clipper.model.model import Columns, Inputs, Values
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# Types of values by numpy's names of MLflow's column and tensor types. Values of other types come as texts.
_WIRE = {dtype.label: dtype for dtype in DType if dtype.is_numeric} | {
    "int8": DType.INT32,
    "int16": DType.INT32,
    "str": DType.STRING,
    "bytes": DType.BYTES,
}

# Makes the model's argument from a batch of rows.
_Reader = Callable[[Any], Any]


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a folder. Raises ContainerFailed if its signature lacks the requested outputs."""
    model = mlflow.pyfunc.load_model(str(source.path))
    input_type, read = _takes(model.metadata.get_input_schema())
    parameters = _parameters(model.metadata.get_params_schema(), input_type)
    outputs_schema = model.metadata.get_output_schema()
    named = [] if outputs_schema is None else [spec.name for spec in outputs_schema.inputs if spec.name is not None]
    names = source.names(named or [VALUES], named)

    def predict_batch(rows: Inputs) -> Any:
        return _answers(model.predict(read(rows)), names if named else ())

    def predict_groups(rows: Inputs) -> Sequence[Any]:
        """Call the function once for each set of parameters and of present columns."""
        assert isinstance(rows, dict)
        outputs: list[Any] = [None] * len(next(iter(rows.values())))
        for group, columns, given in _groups(rows, record, parameters):
            found = _answers(model.predict(read(columns), params=given or None), names if named else ())
            if isinstance(found, dict):
                found = [dict(zip(found, values)) for values in zip(*found.values())]
            for row, output in zip(group, found):
                outputs[row] = output
        return outputs

    flavor = model.metadata.flavors["python_function"]["loader_module"]
    library = f"mlflow {mlflow.__version__} ({flavor})"
    if not isinstance(input_type, RecordType):
        return FrameworkModel(predict_batch, input_type, library)
    record = RecordType((*input_type.fields, *parameters.values()))
    in_groups = bool(parameters) or any(_splits_batches(field) for field in input_type.fields)
    return FrameworkModel(predict_groups if in_groups else predict_batch, record, library)


def _takes(schema: Any) -> tuple[ValueType | None, _Reader]:
    """Return the input type of a query, and the function that makes the model's argument, from a signature's inputs."""
    if schema is None:
        return None, lambda rows: rows
    if schema.is_tensor_spec():
        return _takes_tensors(schema.inputs)
    return _takes_columns(schema.inputs)


def _takes_tensors(specs: Sequence[Any]) -> tuple[ValueType, _Reader]:
    fields = [_tensor_field(spec) for spec in specs]
    if len(specs) == 1:
        name, dtype = specs[0].name, specs[0].type

        def read(rows: Inputs) -> Any:
            array = np.asarray(rows).astype(dtype, copy=False)
            return array if name is None else {name: array}

        return fields[0].type, read
    types = [spec.type for spec in specs]
    return RecordType(tuple(fields)), lambda columns: {
        name: np.asarray(values).astype(dtype, copy=False) for dtype, (name, values) in zip(types, columns.items())
    }


def _tensor_field(spec: Any) -> Field:
    wire = _WIRE.get(np.dtype(spec.type).name, DType.STRING)
    return Field(spec.name or "input", InputType(wire, tuple(None if size == -1 else size for size in spec.shape[1:])))


def _takes_columns(specs: Sequence[Any]) -> tuple[ValueType, _Reader]:
    if specs[0].name is None:
        return _takes_places(specs)
    fields = [_column_field(spec) for spec in specs]
    convert = {spec.name: made for spec in specs if (made := _conversion(spec)) is not None}
    record = RecordType(tuple(fields))
    frame = framing(record)

    def read(columns: Columns) -> Any:
        made = frame(columns)
        for name, of_column in convert.items():
            made[name] = of_column(columns[name])
        return made

    return record, read


def _takes_places(specs: Sequence[Any]) -> tuple[ValueType, _Reader]:
    """Return the same for columns without names: a list of numbers of their common type, or else of float64."""
    types = [_numpy_name(spec.type) for spec in specs]
    wire = _WIRE.get(types[0], DType.FLOAT64) if len(set(types)) == 1 else DType.FLOAT64
    if types == ["str"]:
        return InputType(DType.STRING), lambda rows: pandas.DataFrame({0: list(rows)})

    def read(rows: Inputs) -> Any:
        array = np.asarray(rows)
        return pandas.DataFrame({index: array[:, index].astype(dtype) for index, dtype in enumerate(types)})

    return InputType(wire, (len(specs),)), read


def _column_field(spec: Any) -> Field:
    is_optional = not spec.required
    element = getattr(spec.type, "dtype", None)  # an Array has it
    if element is not None and (wire := _WIRE.get(_numpy_name(element))) is not None and wire.is_numeric:
        return Field(spec.name, InputType(wire), is_optional)
    wire = _WIRE.get(_numpy_name(spec.type), DType.STRING)
    # A missing number is NaN, which a signature of floats has always allowed.
    is_float = wire in (DType.FLOAT32, DType.FLOAT64)
    return Field(spec.name, InputType(wire, ()), is_optional or is_float)


def _conversion(spec: Any) -> Callable[[Values], Any] | None:
    """Return a function that makes a frame's column of values that have no type of a table, or that came as texts."""
    kind = _numpy_name(spec.type)
    if kind.startswith("datetime64"):
        return lambda values: pandas.Series(pandas.to_datetime(list(values)), dtype="datetime64[ns]")
    if kind in _WIRE:
        return None
    element = _WIRE.get(_numpy_name(getattr(spec.type, "dtype", None)))
    if element is not None and element.is_numeric:
        return lambda values: pandas.Series([None if one is None else np.asarray(one) for one in values])
    # Objects, maps, and lists of these or of texts come as JSON, one text for each row.
    return lambda values: pandas.Series([None if one is None else json.loads(one) for one in values], dtype=object)


def _numpy_name(of_type: Any) -> str:
    """Return numpy's name of a type, such as ``float64`` or ``str``; empty for arrays, objects and maps."""
    to_numpy = getattr(of_type, "to_numpy", None)
    name = "" if to_numpy is None else np.dtype(to_numpy()).name
    return "bytes" if str(getattr(of_type, "name", "")) == "binary" else name.removesuffix("_")


def _parameters(schema: Any, input_type: ValueType | None) -> dict[str, Field]:
    """Return the fields of the function's parameters by their names, each with its default."""
    taken = set(input_type.names) if isinstance(input_type, RecordType) else set()
    fields = {}
    for spec in schema.params if schema is not None else ():
        kind = _numpy_name(spec.dtype)
        is_date = kind.startswith("datetime64")
        wire = DType.STRING if is_date else _WIRE.get(kind)
        if wire is None or not (wire.is_numeric or spec.shape is None):
            continue  # the function uses its default
        name = f"params.{spec.name}" if spec.name in taken else spec.name
        default = spec.default.tolist() if isinstance(spec.default, np.ndarray) else spec.default
        if is_date and default is not None:
            default = str(default).replace(" ", "T")  # the function takes a date as text, too
        of_type = InputType(wire, () if spec.shape is None else (None,))
        text = None if default is None else json.dumps(default, separators=(",", ":"))
        fields[spec.name] = Field(name, of_type, default is None, text)
    return fields


def _splits_batches(field: Field) -> bool:
    """Whether a signature refuses a frame in which some rows lack the field: whole numbers and booleans."""
    return field.is_nullable and field.type.dtype in (DType.INT32, DType.INT64, DType.BOOL) and not field.type.shape


def _groups(
    columns: Columns, record: RecordType, parameters: Mapping[str, Field]
) -> list[tuple[list[int], Columns, dict[str, Any]]]:
    """Split a batch into groups for a call of the function each. Return their rows, columns and parameters."""
    given = {name: columns[field.name] for name, field in parameters.items()}
    splitting = [field for field in record.fields if _splits_batches(field)]
    keys: dict[str, list[int]] = {}
    for row in range(len(next(iter(columns.values())))):
        values = {name: _plain(parameters[name], of_rows[row]) for name, of_rows in given.items()}
        key = json.dumps([values, [_is_absent(columns[field.name][row]) for field in splitting]])
        keys.setdefault(key, []).append(row)
    found = []
    own = {field.name for field in parameters.values()}
    for key, rows in keys.items():
        values, absent = json.loads(key)
        gone = {field.name for field, is_absent in zip(splitting, absent) if is_absent}
        chosen: Columns = {
            name: of_rows[rows] if isinstance(of_rows, np.ndarray) else [of_rows[row] for row in rows]
            for name, of_rows in columns.items()
            if name not in own and name not in gone
        }
        for field in splitting:
            if field.name in chosen:
                chosen[field.name] = np.asarray(chosen[field.name]).astype(field.type.dtype.numpy_code)
        found.append((rows, chosen, {name: value for name, value in values.items() if value is not None}))
    return found


def _is_absent(value: Any) -> bool:
    return value is None or bool(value != value)  # NaN is not itself


def _plain(field: Field, value: Any) -> Any:
    if _is_absent(value) if not isinstance(value, np.ndarray) else False:
        return None
    plain = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    return int(plain) if field.type.dtype in (DType.INT32, DType.INT64) and isinstance(plain, float) else plain


def _answers(outputs: Any, names: Sequence[str]) -> Any:
    """Return the answers to a batch from the function's result: a frame, a series, an array, a list or a dict."""
    if isinstance(outputs, pandas.DataFrame):
        outputs = outputs.rename(columns=str)
    elif isinstance(outputs, dict):
        outputs = {str(name): value for name, value in outputs.items()}
    else:
        return outputs  # the runtime reports what is wrong with it, if anything
    absent = [name for name in names if name not in outputs]
    if absent:
        raise ModelFailed(
            f"the model returned {', '.join(outputs)}, without {', '.join(absent)}, which its signature declares"
        )
    chosen = list(names or outputs)
    return outputs[chosen[0]] if len(chosen) == 1 else {name: outputs[name] for name in chosen}
