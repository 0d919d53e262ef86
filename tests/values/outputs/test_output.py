import math
import struct

import pytest

from clipper.errors import ModelFailed
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.outputs import output as module
from clipper.values.outputs.output import (
    SURELY_SHORT_BYTES,
    Output,
    OutputNames,
    TypedOutput,
    is_long,
    is_readable,
    judged_text,
    make_record,
    read_output,
    read_outputs,
    text_pieces,
    text_start,
)
from clipper.values.types import MAX_DIMENSIONS, DType
from tests.worker.frontend.steps import finish

PAIR = OutputForm(DType.FLOAT32, (2,), DType.FLOAT64)


def record(**parts: bytes) -> Output:
    return make_record(OutputNames(tuple(parts)), tuple(parts.values()))


def results(form: OutputForm, rows: int, data: bytes, failures: dict[int, str] | None = None) -> TypedResults:
    return TypedResults(form, rows, memoryview(data), 5, failures or {})


def test_outputs_keep_their_bytes_and_have_a_text() -> None:
    data = struct.pack("<4f", 0.5, 2, -1, 1e20)
    outputs, failures = read_outputs(results(PAIR, 2, data))
    assert failures == {}
    first, second = outputs
    assert isinstance(first, TypedOutput) and isinstance(second, TypedOutput)
    assert (first.data, second.data) == (data[:8], data[8:])
    sizes = len(first), len(second)
    assert (bytes(first), bytes(second)) == (b"[0.5,2.0]", b"[-1.0,1.0000000200408773e+20]")
    # A text that was made does not change what a cache counts.
    assert (len(first), len(second)) == sizes and len(second) >= 8 + len(bytes(second))
    assert bytes(second) is bytes(second)


def test_nan_and_infinities_are_values_whose_text_is_null() -> None:
    data = struct.pack("<6f", 1, 2, 3, math.nan, -math.inf, 6)
    outputs, failures = read_outputs(results(PAIR, 3, data))
    assert failures == {}
    assert [output and bytes(output) for output in outputs] == [b"[1.0,2.0]", b"[3.0,null]", b"[null,6.0]"]
    assert b"".join(output.data for output in outputs if output) == data


def test_a_bool_that_is_neither_fails_its_row_alone() -> None:
    outputs, failures = read_outputs(results(OutputForm(DType.BOOL, (), DType.BOOL), 3, b"\0\1\2"))
    assert [output and bytes(output) for output in outputs] == [b"false", b"true", None]
    assert failures == {2: "output contains a bool that is not 0 or 1"}


def test_the_containers_own_message_of_a_failed_row_stays() -> None:
    data = struct.pack("<4f", math.nan, 2, 3, 4)
    outputs, failures = read_outputs(results(PAIR, 2, data, {0: "no such user"}))
    assert outputs[0] is None and failures == {0: "no such user"}


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.is_numeric])
@pytest.mark.parametrize("inner", [(), (1,), (1,) * (MAX_DIMENSIONS - 1)])
def test_an_output_that_is_surely_short_is_not_long(dtype: DType, inner: tuple[int, ...]) -> None:
    for size_bytes in range(dtype.size_bytes, SURELY_SHORT_BYTES + 1, dtype.size_bytes):
        form = OutputForm(dtype, (size_bytes // dtype.size_bytes, *inner), dtype)
        (output,), _ = read_outputs(results(form, 1, bytes(size_bytes)))
        assert output is not None and not is_long(output) and is_readable(output)


LONG = OutputForm(DType.FLOAT64, (100, 200), DType.FLOAT64)


def test_a_long_output_is_read_in_pieces_and_does_not_keep_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    data = struct.pack("<40000d", *range(40_000))
    output = finish(read_output(results(LONG, 2, data), 1))
    assert output.data == data[160_000:] and is_long(output) and len(output) == len(output.data)
    whole = bytes(output)
    assert output.text is None and b"".join(text_pieces(output)) == whole
    assert text_start(output, 10_000) == whole[:10_000] and text_start(output, 10**9) == whole


def test_a_long_output_with_a_bool_that_is_neither_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    data = bytearray(2 * 40_000)
    data[70_000] = 2
    of_bools = results(OutputForm(DType.BOOL, (40_000,), DType.BOOL), 2, bytes(data))
    with pytest.raises(ModelFailed, match="a bool that is not 0 or 1"):
        finish(read_output(of_bools, 1))
    assert finish(read_output(of_bools, 0)).data == bytes(40_000)


@pytest.mark.parametrize(
    ("output", "names", "is_named", "judged"),
    [
        (b"[1,2]", ("label",), False, b"[1,2]"),
        (b'{"label":1}', ("label",), False, b'{"label":1}'),  # as it always was, unless the application names it
        (b'{"label":1,"x":2}', ("x",), True, b"2"),
        (b'{"label":1}', ("x",), True, b'{"label":1}'),
        (b'{"label":', ("label",), True, b'{"label":'),
        (record(label=b'"a"', scores=b"[1,2]"), ("label",), False, b'"a"'),
        (record(label=b'"a"', scores=b"[1,2]"), ("scores",), True, b"[1,2]"),
        (record(label=b'"a"', probabilities=b"[1,0]"), ("probabilities", "label"), False, b"[1,0]"),
        (record(price=b"5", boxes=b"[[1]]"), ("label",), False, b"5"),
        (record(price=b"5", age=b"7"), ("label",), False, b'{"price":5,"age":7}'),
        (record(price=b"5", boxes=b"[[1]]"), ("label",), True, b'{"price":5,"boxes":[[1]]}'),
    ],
)
def test_labels_are_compared_with_one_value_of_a_record(
    output: Output, names: tuple[str, ...], is_named: bool, judged: bytes
) -> None:
    assert judged_text(output, names, is_named=is_named) == judged


@pytest.mark.parametrize(("kept_with", "is_whole"), [((), False), (("score",), False), (("score", "confidence"), True)])
def test_a_label_is_kept_with_how_sure_it_is(kept_with: tuple[str, ...], is_whole: bool) -> None:
    output = record(label=b"2", confidence=b"0.6")
    judged = judged_text(output, ("label",), is_named=False, kept_with=kept_with)
    assert judged == (b'{"label":2,"confidence":0.6}' if is_whole else b"2")
    assert judged_text(output, ("label",), is_named=True) == b"2"
