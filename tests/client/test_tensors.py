"""Arrays as tensors."""

import warnings
from typing import Any

import numpy as np
import pytest

from clipper.client.tensors import TypeOfInputs, WithData, tensor_of_features, tensor_of_inputs, tensor_of_labels

FLOATS = TypeOfInputs("FP32", (3,))


def said(found: WithData | None) -> tuple[tuple[int, ...], str, bytes] | None:
    return None if found is None else (found.tensor.shape, found.tensor.datatype, found.data)


def test_an_array_goes_as_it_is_in_memory() -> None:
    for dtype, datatype in [("f4", "FP32"), ("f2", "FP16"), ("u1", "UINT8"), ("i8", "INT64")]:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        found = tensor_of_inputs(array, FLOATS)
        assert said(found) == ((2, 3), datatype, array.tobytes())
        assert found is not None and found.tensor.parameters == {"binary_data_size": len(array.tobytes())}


def test_any_layout_in_memory_goes_in_the_order_of_the_protocol() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    for other in (np.asfortranarray(array), array.astype(">f4"), np.repeat(array, 2, 1)[:, ::2]):
        assert said(tensor_of_inputs(other, FLOATS)) == ((2, 3), "FP32", array.tobytes())


def test_a_list_of_equal_arrays_is_one_tensor() -> None:
    rows = [np.arange(3, dtype="f4"), np.arange(3, 6, dtype="f4")]
    assert said(tensor_of_inputs(rows, FLOATS)) == ((2, 3), "FP32", np.concatenate(rows).tobytes())
    scalars = [np.float64(1), np.float64(2)]
    assert said(tensor_of_inputs(scalars, TypeOfInputs("FP64", (1,)))) == ((2,), "FP64", np.array(scalars).tobytes())


def test_float64_is_rounded_to_float32_as_json_is() -> None:
    assert said(tensor_of_inputs([np.full(3, 0.1)], FLOATS)) == ((1, 3), "FP32", np.full(3, 0.1, "f4").tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's own, of the overflow
        assert tensor_of_inputs([np.array([0, 1e300, 0])], FLOATS) is None
        assert tensor_of_inputs([np.array([-1e300, 1, 0])], FLOATS) is None


@pytest.mark.parametrize(
    ("inputs", "datatype"),
    [
        ([np.ones(3)], "INT32"),
        ([np.ones(3)], "BOOL"),
        ([np.ones(3, bool)], "FP32"),
        ([np.ones(3, complex)], "FP64"),
        ([np.array(["a"])], "BYTES"),
        ([np.array([1, None], object)], "FP32"),
        ([np.ma.masked_array([1.0, 2.0, 3.0], [True, False, False])], "FP64"),
        ([np.ones(3), np.ones(2)], "FP64"),
        ([np.ones(3), np.ones(3, "f4")], "FP64"),
        ([np.ones(3), [1.0, 1.0, 1.0]], "FP64"),
        ([[1.0, 1.0, 1.0]], "FP64"),
        (["text"], "BYTES"),
        ([], "FP64"),
        (np.float64(3), "FP64"),
    ],
)
def test_what_goes_as_json(inputs: Any, datatype: str) -> None:
    assert tensor_of_inputs(inputs, TypeOfInputs(datatype, (3,))) is None


def test_bytes() -> None:
    told = said(tensor_of_inputs([b"ab", b""], TypeOfInputs("BYTES", (1,))))
    assert told == ((2,), "BYTES", b"\x02\0\0\0ab\0\0\0\0")
    pixels = TypeOfInputs("UINT8", (2, 2))
    assert said(tensor_of_inputs([b"abcd"], pixels)) == ((1, 2, 2), "UINT8", b"abcd")
    assert tensor_of_inputs([b"abc"], pixels) is None
    assert tensor_of_inputs([b"abcd"], TypeOfInputs("UINT8", (-1,))) is None
    assert tensor_of_inputs([b"abcd"], FLOATS) is None


def test_features() -> None:
    array = np.arange(4.0).reshape(2, 2)
    assert said(tensor_of_features(array, 2)) == ((2, 2), "FP64", array.tobytes())
    assert said(tensor_of_features(array[0], None)) == ((1, 2), "FP64", array[0].tobytes())
    single, several = tensor_of_features([1, 2.5], None), tensor_of_features([[1], [2]], 2)
    assert single is not None and (single.tensor.shape, single.tensor.data) == ((1, 2), [[1, 2.5]])
    assert several is not None and (several.tensor.shape, several.data) == ((2, 1), b"")
    rows = tensor_of_features([np.ones(2), [1, 2]], 2)
    assert rows is not None and rows.tensor.shape == (2, 2)
    assert tensor_of_features([np.ones((2, 2))], 1) is tensor_of_features([1, 2], 2) is None
    assert tensor_of_features("ab", None) is None and tensor_of_features(5, None) is None


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (3, ("INT64", [3])),
        (np.int8(3), ("INT64", [3])),
        (2.5, ("FP64", [2.5])),
        (np.array(2.5, "f4"), ("FP64", [2.5])),
        (True, ("BOOL", [True])),
        (np.True_, ("BOOL", [True])),
        ("three", ("BYTES", ["three"])),
        (2**63, None),
        (float("inf"), None),
        (None, None),
        ([3], None),
        (np.ones(1), None),
        ({"a": 1}, None),
    ],
)
def test_labels(label: Any, expected: tuple[str, list[Any]] | None) -> None:
    found = tensor_of_labels([label])
    assert (None if found is None else (found.tensor.datatype, found.tensor.data)) == expected


def test_labels_of_several_pieces() -> None:
    def data(*labels: Any) -> Any:
        found = tensor_of_labels(labels)
        return None if found is None else (found.tensor.shape, found.tensor.datatype, found.tensor.data)

    assert data(1, np.int64(2), 3) == ((3,), "INT64", [1, 2, 3])
    assert data("a", "") == ((2,), "BYTES", ["a", ""])
    # 1 and 1.0, or 1 and True, are different labels.
    assert data(1, 1.0) is data(1, True) is data("a", 1) is data(1, 2**63) is data(0.5, float("nan")) is None
