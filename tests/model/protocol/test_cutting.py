"""Batches that are cut: the same rows, in the same form."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.model.protocol.columns import decode_predict_columns, encode_predict_columns
from clipper.model.protocol.cutting import RowCutter
from clipper.model.protocol.frames import HEADER_BYTES
from clipper.model.protocol.messages import decode_predict, encode_predict
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, parse_type
from clipper.values.types import DType

RECORD = parse_type("age: float64?, job: string, count: int32, flag: bool?, note: string?")
assert isinstance(RECORD, RecordType)
ROWS = RecordRows(RECORD)
VALUES = st.tuples(
    st.none() | st.floats(allow_nan=False),
    st.text(max_size=5).map(str.encode),
    st.integers(-5, 5),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=3).map(str.encode),
)


def body(frame: list[bytes]) -> bytes:
    return b"".join(frame)[HEADER_BYTES:]


@given(values=st.lists(VALUES, min_size=1, max_size=30), data=st.data())
def test_records(values: list[tuple[object, ...]], data: st.DataObject) -> None:
    rows = [ROWS.row(each) for each in values]
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    whole = decode_predict_columns(body(encode_predict_columns(3, ROWS.columns(rows))))
    cut = decode_predict_columns(body(RowCutter(whole).encode(7, start, stop)))
    own = decode_predict_columns(body(encode_predict_columns(7, ROWS.columns(rows[start:stop]))))
    assert cut.rows == own.rows
    for one, other in zip(cut.columns, own.columns):
        assert (one.name, one.type, bytes(one.payload), one.lengths) == (
            *(other.name, other.type, bytes(other.payload), other.lengths),
        )
        # Where none is missing in the part, bits may say so.
        everything = bytes([255]) * (one.rows // 8) + bytes([(1 << one.rows % 8) - 1]) * bool(one.rows % 8)
        assert (one.present or everything) == (other.present or everything)


@given(
    rows=st.lists(st.binary(max_size=6) | st.binary(min_size=4, max_size=4), min_size=1, max_size=30), data=st.data()
)
def test_rows(rows: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    whole = decode_predict(body(encode_predict(3, DType.BYTES, 0, rows)))
    cut = decode_predict(body(RowCutter(whole).encode(7, start, stop)))
    sizes = cut.lengths or (cut.row_bytes,) * cut.rows
    assert [cut.dtype, cut.rows, list(sizes)] == [DType.BYTES, stop - start, list(map(len, rows[start:stop]))]
    assert bytes(cut.payload) == b"".join(rows[start:stop])
