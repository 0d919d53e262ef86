import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.protocol.frames import HEADER_BYTES, Kind, Splitter
from clipper.model.protocol.typed import decode_typed_results, encode_typed_results
from clipper.values.output_arrays import OutputForm
from clipper.values.types import DType

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


def test_bytes_that_only_align_are_not_looked_at() -> None:
    form = OutputForm(DType.INT32, (2,), DType.INT32)
    body = bytearray(encode_typed_results(1, 1, form, bytes(range(8)))[HEADER_BYTES:])
    assert body[28:32] == bytes(4)
    body[28:32] = b"\xff" * 4
    assert bytes(decode_typed_results(bytes(body)).data) == bytes(range(8))


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


FORM = OutputForm(DType.FLOAT32, (2,), DType.FLOAT32)


def test_results_without_a_time_or_failures_have_none() -> None:
    results = decode_typed_results(encode_typed_results(1, 3, FORM, bytes(24))[HEADER_BYTES:])
    assert (results.evaluation_us, results.failures) == (0, {})
    assert str(results.form) == "float32[2]"


@pytest.mark.parametrize(("code", "written_code"), [(9, DType.FLOAT32), (DType.FLOAT32, 9), (9, 9)])
def test_a_type_that_there_is_not_is_refused(code: int, written_code: int) -> None:
    body = struct.pack("<IIQBBBBI", 1, 0, 5, code, written_code, 0, 0, 0) + bytes(4)
    with pytest.raises(ModelFailed, match=f"has type {int(code)}, written as {int(written_code)}"):
        decode_typed_results(body)


def test_bytes_after_the_last_row_are_counted_in_the_refusal() -> None:
    body = encode_typed_results(1, 3, FORM, bytes(24))[HEADER_BYTES:]
    with pytest.raises(ModelFailed, match=r"has 5 bytes after 3 rows of shape \(2,\), float32"):
        decode_typed_results(body + bytes(5))


def test_a_body_that_ends_before_its_data_is_refused_as_such() -> None:
    body = encode_typed_results(1, 3, FORM, bytes(24))[HEADER_BYTES:]
    for size, says in (
        (24, "1 dimensions"),
        (31, "1 dimensions"),
        (32, "has 0 bytes for 3 rows"),
        (23, "is too short"),
    ):
        with pytest.raises(ModelFailed, match=says):
            decode_typed_results(body[:size])
    scalar = struct.pack("<IIQBBBBI", 1, 0, 5, DType.FLOAT32, DType.FLOAT32, 0, 0, 0)
    with pytest.raises(ModelFailed, match="has 0 bytes for 1 rows"):
        decode_typed_results(scalar)
