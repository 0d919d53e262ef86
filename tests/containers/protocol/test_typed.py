import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.containers.protocol.frames import HEADER_BYTES, Kind, Splitter
from clipper.containers.protocol.typed import OutputForm, decode_typed_results, encode_typed_results
from clipper.errors import ModelFailed
from clipper.types import DType

forms = st.builds(
    lambda dtype, shape, is_wide: OutputForm(
        dtype, tuple(shape), DType.FLOAT64 if is_wide and dtype is DType.FLOAT32 else dtype
    ),
    st.sampled_from([dtype for dtype in DType if dtype.is_numeric]),
    st.lists(st.integers(1, 3), max_size=8),
    st.booleans(),
)


@given(forms, st.integers(1, 4), st.integers(0, 2**64 - 1), st.dictionaries(st.integers(0, 3), st.text()))
def test_round_trip(form: OutputForm, rows: int, number: int, messages: dict[int, str]) -> None:
    data = bytes(index % 251 for index in range(rows * form.row_bytes))
    failures = {row: message for row, message in messages.items() if row < rows}
    frame = encode_typed_results(number, rows, form, data, number, failures)
    [(kind, frame_id, body)] = Splitter().feed(frame)
    assert (kind, frame_id) == (Kind.TYPED_RESULTS, number)
    results = decode_typed_results(body)
    assert (results.form, results.rows, bytes(results.data)) == (form, rows, data)
    assert results.evaluation_us == number and results.failures.keys() == failures.keys()
    # Elements begin at a multiple of 8, so that an aligned frame has aligned elements.
    assert frame.index(data, HEADER_BYTES + 24) % 8 == 0 or len(data) < 8


@given(st.binary(max_size=120))
def test_garbage_only_ever_fails_the_batch(data: bytes) -> None:
    try:
        decode_typed_results(data)
    except ModelFailed as error:
        assert "cannot be read" in str(error)


@given(st.data())
def test_damaged_bodies_only_ever_fail_the_batch(data: st.DataObject) -> None:
    form = OutputForm(DType.FLOAT32, (2, 2), DType.FLOAT32)
    whole = encode_typed_results(1, 3, form, bytes(48), 5, {1: "no"})[HEADER_BYTES:]
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for index in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
        damaged[index : index + 1] = data.draw(st.binary(min_size=1, max_size=1))
    try:
        decode_typed_results(bytes(damaged))
    except ModelFailed as error:
        assert str(error)


@pytest.mark.parametrize("length", [2**16, 2**32 - 1])
def test_no_product_of_lengths_overflows(length: int) -> None:
    head = struct.pack("<IIQBBBBI", 65_536, 0, 5, DType.FLOAT64, DType.FLOAT64, 8, 0, 0)
    with pytest.raises(ModelFailed, match="has 8 bytes for 65536 rows"):
        decode_typed_results(head + struct.pack("<8I", *[length] * 8) + bytes(8))
