"""Arrays as binary tensors of the Open Inference Protocol. numpy is not imported here."""

import struct
from collections.abc import Mapping, Sequence
from math import isfinite, isinf, prod
from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<I")
_INT64 = range(-(2**63), 2**63)
# Maps a datatype to an array's name for its elements: kind and size in bytes.
_CODES = {"BOOL": "b1", "FP16": "f2", "FP32": "f4", "FP64": "f8"}
_CODES |= {f"INT{8 * size}": f"i{size}" for size in (1, 2, 4, 8)}
_CODES |= {f"UINT{8 * size}": f"u{size}" for size in (1, 2, 4, 8)}
_DATATYPES = {code: datatype for datatype, code in _CODES.items()}
# The datatypes that an application takes besides its own: the server converts these without loss, or refuses a value.
_INTEGERS = frozenset(datatype for datatype in _CODES if "INT" in datatype)
_TAKEN: dict[str, frozenset[str]] = {
    "FP32": _INTEGERS | {"FP16"},
    "FP64": _INTEGERS | {"FP16", "FP32"},
    "INT32": _INTEGERS,
    "INT64": _INTEGERS,
    "UINT8": _INTEGERS,
}


class TypeOfInputs(Struct, frozen=True):
    """An application's input type, as in its metadata: in ``shape``, -1 is any length; a scalar has one element."""

    datatype: str
    shape: tuple[int, ...]


class Tensor(Struct, frozen=True, omit_defaults=True):
    """A tensor in a request's JSON. The first length of ``shape`` counts the inputs."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Mapping[str, int] | UnsetType = UNSET
    data: Sequence[Any] | UnsetType = UNSET


class WithData(Struct, frozen=True):
    """A tensor and its data, which follows the JSON; ``data`` is empty if it is in the JSON."""

    tensor: Tensor
    data: bytes


def is_array(value: object) -> "TypeGuard[NDArray[Any]]":
    """Whether a value is an array or a scalar of numpy, and not masked: bytes hide which elements are missing."""
    return hasattr(getattr(value, "dtype", None), "kind") and hasattr(value, "tobytes") and not hasattr(value, "mask")


def tensor_of_inputs(inputs: Any, taken: TypeOfInputs) -> WithData | None:
    """Return the tensor of several inputs: an array whose first length counts them, or a list of equal arrays or bytes.

    None means that the inputs are sent as JSON, whose numbers the server converts, or refuses with its own message.
    """
    if is_array(inputs):
        return _of_array("input", inputs, inputs.shape, taken.datatype) if inputs.shape else None
    if not isinstance(inputs, (list, tuple)) or not inputs:
        return None
    if all(isinstance(each, (bytes, bytearray)) for each in inputs):
        return _of_bytes(inputs, taken)
    first = inputs[0]
    if not is_array(first):
        return None
    for each in inputs:
        if not is_array(each) or each.dtype != first.dtype or each.shape != first.shape:
            return None
    parts = [_of_array("input", each, (1, *each.shape), taken.datatype) for each in inputs]
    found = [part for part in parts if part is not None]
    if len(found) != len(parts):
        return None
    return _binary("input", (len(parts), *first.shape), found[0].tensor.datatype, b"".join(part.data for part in found))


def tensor_of_features(features: Any, rows: int | None) -> WithData | None:
    """Return the tensor of a policy's features; None if they do not form a tensor.

    ``features`` are the numbers of a single query if ``rows`` is None, else a list of such numbers for each query.
    """
    if is_array(features):
        shape = (1, *features.shape) if rows is None else features.shape
        return _of_array("features", features, shape, "FP64")
    if rows is None:
        features = [features]
    if not isinstance(features, (list, tuple)) or not all(
        len(row.shape) == 1 if is_array(row) else isinstance(row, (list, tuple)) for row in features
    ):
        return None
    shape = (len(features), len(features[0]) if features else 0)
    return WithData(Tensor("features", shape, "FP64", data=features), b"")


def tensor_of_labels(labels: Sequence[Any]) -> WithData | None:
    """Return the tensor of labels; None unless all are numbers of one kind, truth values or texts."""
    values = [each.item() if is_array(each) and not each.shape else each for each in labels]
    (kind, *others) = {type(value) for value in values}
    datatype = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}.get(kind)
    if (
        datatype is None
        or others
        or (datatype == "INT64" and not all(value in _INT64 for value in values))
        or (datatype == "FP64" and not all(map(isfinite, values)))
    ):
        return None
    return column("label", datatype, values)


def column(name: str, datatype: str, values: Sequence[Any]) -> WithData:
    """Return a tensor with an element in each row. Its data is in the JSON."""
    return WithData(Tensor(name, (len(values),), datatype, data=values), b"")


def _of_array(name: str, array: "NDArray[Any]", shape: tuple[int, ...], wanted: str) -> WithData | None:
    datatype = _DATATYPES.get(f"{array.dtype.kind}{array.dtype.itemsize}")
    if datatype is None:
        return None
    if datatype == "FP64" and wanted == "FP32":
        array, datatype = array.astype("<f4"), wanted
        if prod(shape) and (isinf(array.max()) or isinf(array.min())):
            return None
    elif datatype != wanted and datatype not in _TAKEN.get(wanted, ()):
        return None
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return _binary(name, shape, datatype, array.tobytes())


def _of_bytes(inputs: "Sequence[bytes | bytearray]", taken: TypeOfInputs) -> WithData | None:
    if taken.datatype == "BYTES":
        data = b"".join(part for each in inputs for part in (_LENGTH.pack(len(each)), each))
        return _binary("input", (len(inputs),), "BYTES", data)
    if taken.datatype != "UINT8" or any(len(each) != prod(taken.shape) for each in inputs):
        return None
    return _binary("input", (len(inputs), *taken.shape), "UINT8", b"".join(inputs))


def _binary(name: str, shape: tuple[int, ...], datatype: str, data: bytes) -> WithData:
    return WithData(Tensor(name, shape, datatype, {"binary_data_size": len(data)}), data)
