import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import WrongInput
from clipper.model.protocol import messages
from clipper.model.protocol.frames import HEADER_BYTES, Splitter
from clipper.model.protocol.messages import Predict
from clipper.model.runtime.inputs import input_reader
from clipper.values.types import DType, InputType

NUMPY = {
    DType.INT32: np.int32,
    DType.INT64: np.int64,
    DType.FLOAT32: np.float32,
    DType.FLOAT64: np.float64,
    DType.UINT8: np.uint8,
    DType.BOOL: np.bool_,
}
numeric = pytest.mark.parametrize("dtype", list(NUMPY), ids=lambda dtype: dtype.label)


def batch(dtype: DType, rows: list[bytes], dimensions: int = 0) -> Predict:
    frame = b"".join(messages.encode_predict(1, dtype, dimensions, rows))
    [(_, _, body)] = Splitter().feed(frame)
    return messages.decode_predict(body)


def read(input_type: str, rows: list[bytes], dimensions: int = 0) -> Any:
    parsed = InputType.parse(input_type)
    return input_reader(parsed)(batch(parsed.dtype, rows, dimensions))


def with_dimensions(array: Any) -> bytes:
    return struct.pack(f"<{array.ndim}I", *array.shape) + bytes(array.tobytes())


@numeric
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("rows", [1, 3])
def test_fixed_shape_is_one_array(dtype: DType, shape: tuple[int, ...], rows: int) -> None:
    expected: Any = np.arange(rows * int(np.prod(shape))).reshape(rows, *shape).astype(NUMPY[dtype])
    got = read(str(InputType(dtype, shape)), [row.tobytes() for row in expected])
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert (got == expected).all()


@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=4), min_size=1, max_size=6))
def test_lists_of_one_length_are_one_array_others_a_list(rows: list[list[float]]) -> None:
    got = read("float64[*]", [struct.pack(f"<{len(row)}d", *row) for row in rows])
    assert isinstance(got, np.ndarray) == (len({len(row) for row in rows}) == 1)
    assert len(got) == len(rows)
    assert [row.tolist() for row in got] == rows


@pytest.mark.parametrize("shapes", [[(3, 2), (3, 2)], [(3, 2), (3, 1)], [(3, 0)]])
def test_rows_with_their_own_dimensions(shapes: list[tuple[int, ...]]) -> None:
    expected: list[Any] = [np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for shape in shapes]
    got = read("float32[3,*]", [with_dimensions(array) for array in expected], dimensions=2)
    assert isinstance(got, np.ndarray) == (len(set(shapes)) == 1)
    for mine, theirs in zip(got, expected):
        assert mine.shape == theirs.shape
        assert (mine == theirs).all()


def test_texts_and_bytes() -> None:
    assert read("string", ["naïve".encode(), b""]) == ["naïve", ""]
    assert read("string", [b"", b""]) == ["", ""]
    assert read("bytes", [b"\xff\x00", b"ab"]) == [b"\xff\x00", b"ab"]


@numeric
def test_arrays_are_aligned_and_the_models_to_change(dtype: DType) -> None:
    row = np.ones(4, NUMPY[dtype]).tobytes()
    # Three bytes before the frame's body: as behind another frame in one read.
    frame = b"".join(messages.encode_predict(1, dtype, 0, [row, row]))
    shifted = memoryview(b"123" + frame)[3 + HEADER_BYTES :]
    predict = messages.decode_predict(shifted)
    reader = input_reader(InputType(dtype, (4,)))
    first: Any = reader(predict)
    assert first.flags.aligned
    assert first.flags.writeable
    first[:] = 0
    assert np.asarray(reader(predict)).all()


def test_large_arrays_are_the_models_to_change_and_to_keep() -> None:
    reader = input_reader(InputType(DType.FLOAT64, (400_000,)))
    ones, twos = (batch(DType.FLOAT64, [np.full(400_000, number).tobytes()] * 2) for number in (1.0, 2.0))
    kept: Any = reader(ones)
    kept += 4
    assert (np.asarray(reader(ones)) == 1).all()
    assert (np.asarray(reader(twos)) == 2).all()
    assert (kept == 5).all()


@pytest.mark.parametrize(
    ("input_type", "rows", "dimensions"),
    [
        ("float64[4]", [bytes(24)], 0),
        ("float64[4]", [bytes(32), bytes(24)], 0),
        ("float64[*]", [bytes(12)], 0),
        ("float64[*]", [bytes(8), bytes(4)], 0),
        ("float64[2]", [bytes(24)], 2),
        ("float32[3,*]", [with_dimensions(np.zeros((2, 3), np.float32))], 2),
        ("float32[3,*]", [with_dimensions(np.zeros((3, 3), np.float32))[:-4]], 2),
        ("float32[*,*]", [struct.pack("<2I", 2**32 - 1, 2**32 - 1)], 2),
        ("float32[3,*]", [b"123"], 2),
        ("float32[3,*]", [bytes(12)], 0),
        ("string", [b"\xff"], 0),
    ],
)
def test_batch_of_another_type_is_the_callers_fault(input_type: str, rows: list[bytes], dimensions: int) -> None:
    with pytest.raises(WrongInput):
        read(input_type, rows, dimensions)


def test_another_dtype_is_the_callers_fault() -> None:
    with pytest.raises(WrongInput, match=r"takes float64\[2\].*got int64"):
        input_reader(InputType(DType.FLOAT64, (2,)))(batch(DType.INT64, [bytes(16)]))
