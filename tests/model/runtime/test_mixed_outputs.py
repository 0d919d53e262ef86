"""Outputs whose types differ within a batch: none loses a bit over another, with names or without, to any caller that
knows columns without names."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.model import Inputs
from clipper.model.protocol import messages
from clipper.model.protocol.columns import decode_column_results, encode_column_results
from clipper.model.protocol.frames import HEADER_BYTES, MIXED_VERSION, RECORDS_VERSION
from clipper.model.protocol.typed import decode_typed_results, encode_typed_results
from clipper.model.runtime.evaluate import as_sent, bounded, evaluate
from clipper.model.runtime.outputs import Encoded, encode_outputs, learn_type
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import Output, RecordOutput, TypedOutput, read_outputs
from clipper.values.outputs.record_columns import RecordColumns
from clipper.values.records import parse_type
from tests.worker.frontend.steps import finish

# A quiet NaN keeps its bits when it is cast between float32 and float64.
QUIET = st.builds(lambda sign, payload: 0x7FC00000 | sign << 31 | payload, st.booleans(), st.integers(0, 0x3FFFFF))
numbers = st.one_of(
    st.floats(width=32, allow_nan=False).map(lambda number: struct.unpack("<I", struct.pack("<f", number))[0]), QUIET
)
arrays = st.lists(numbers, max_size=3).map(lambda bits: np.array(bits, np.uint32).view(np.float32))
FORMS = {
    "float32": lambda array: array,
    "float64": lambda array: array.astype(np.float64),
    "list": lambda array: array.tolist(),
    "pair": lambda array: array[None] if array.size else array,
    "number": lambda array: array.tolist()[0] if array.size == 1 else array,
    "element": lambda array: array[0] if array.size == 1 else array,
}
OTHERS: Sequence[Any] = ("text", b"\0", True, [[1], [2, 3]], {"a": 1, "b": "c"}, ["a"], 2**70 + 1)


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


def received(encoded: Encoded, rows: int, version: int = MIXED_VERSION) -> Sequence[Output | None]:
    """A worker's reading of these outputs; None for rows that have failed."""
    sent, found = as_sent(encoded, version), dict[int, str]()
    outputs: Sequence[Output | None]
    if sent.columns:
        body = b"".join(encode_column_results(1, sent.columns, 0, sent.failures))[HEADER_BYTES:]
        results = decode_column_results(body)
        reader = RecordColumns(results.columns)
        outputs, _ = reader.outputs(results.failures)
        for row, output in enumerate(outputs):  # large results are read in steps
            assert output is None or bytes(finish(reader.output(row))) == bytes(output)
    elif sent.array is not None and sent.form is not None:
        data = sent.array.data.cast("B")
        body = encode_typed_results(1, rows, sent.form, data, 0, sent.failures)[HEADER_BYTES:]
        outputs, _ = read_outputs(decode_typed_results(body))
    else:
        body = messages.encode_results(1, rows, sent.text, 0, sent.failures)[HEADER_BYTES:]
        texts = messages.decode_results(body).outputs
        outputs = [None if row in sent.failures else bytes(text) for row, text in enumerate(texts)]
    assert found == {} and len(outputs) == rows
    return outputs


def bits(conversion: Conversion, output: Output | None, name: str | None) -> bytes | None:
    if output is None:
        return None
    try:
        found = conversion.convert(output)
    except ModelFailed:
        return None
    part = found.part(name) if isinstance(found, RecordOutput) and name is not None else found
    assert isinstance(part, TypedOutput)
    return part.data


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Any], list[bytes | None]]:
    """Outputs, and the bits that each has as float32[*]; None for an output that is nothing of that type."""
    outputs: list[Any] = []
    wanted: list[bytes | None] = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 4)):
            array = draw(arrays)
            outputs.append(FORMS[draw(st.sampled_from(sorted(FORMS)))](array))
            wanted.append(array.tobytes())
        else:
            outputs.append(draw(st.sampled_from([*OTHERS, Odd()])))
            wanted.append(None)
    return outputs, wanted


@given(batches(), st.booleans())
def test_no_output_loses_a_bit_over_another(batch: tuple[list[Any], list[bytes | None]], has_names: bool) -> None:
    outputs, wanted = batch
    name = "scores" if has_names else None
    answered = [{"label": "a", "scores": output} for output in outputs] if has_names else outputs
    conversion = Conversion(parse_type("label: string, scores: float32[*]" if has_names else "float32[*]"))
    found = received(encode_outputs(answered, len(outputs)), len(outputs))
    assert [bits(conversion, output, name) for output in found] == wanted


@given(batches(), st.booleans(), st.lists(st.booleans(), min_size=5, max_size=5))
def test_nor_if_the_batch_is_evaluated_in_parts(
    batch: tuple[list[Any], list[bytes | None]], has_names: bool, raises: list[bool]
) -> None:
    outputs, wanted = batch
    wanted = [None if fails else each for each, fails in zip(wanted, raises)]

    def model(inputs: Inputs) -> object:
        rows = np.asarray(inputs)[:, 0].astype(int).tolist()
        if any(raises[row] for row in rows):
            raise ValueError("one of these")
        return [{"scores": outputs[row]} if has_names else outputs[row] for row in rows]

    encoded = evaluate(model, lambda: np.arange(len(outputs), dtype=float)[:, None], lambda: 0.0)
    conversion = Conversion(parse_type("scores: float32[*]" if has_names else "float32[*]"))
    found = received(encoded, len(outputs))
    assert [bits(conversion, output, "scores" if has_names else None) for output in found] == wanted


@pytest.mark.parametrize("has_names", [False, True])
def test_callers_of_older_versions_get_json(has_names: bool) -> None:
    mixed: list[Any] = [np.array([np.inf, 1.5]), [1, np.nan], "a", {"b": 1}]
    answered = [{"x": value} for value in mixed] if has_names else mixed
    encoded = encode_outputs(answered, 4)
    assert len(encoded.columns) == 3
    texts = [output for output in received(encoded, 4, RECORDS_VERSION) if isinstance(output, bytes)]
    found = [json.loads(text) for text in texts]
    assert [each["x"] for each in found] if has_names else found == [[None, 1.5], [1, None], "a", {"b": 1}]


def test_readers_of_json_get_what_the_model_said() -> None:
    mixed: list[Any] = [np.array([np.inf, 1.5]), None, [1, 2], [1.5, np.nan], ["a", "é"], {"b": [1]}, True, 7, b"\0"]
    found = [json.loads(bytes(each)) for each in received(encode_outputs(mixed, len(mixed)), len(mixed)) if each]
    assert found == [[None, 1.5], None, [1, 2], [1.5, None], ["a", "é"], {"b": [1]}, True, 7, "AA=="]
    assert [type(number) for number in found[2]] == [int, int]


def test_an_output_without_json_fails_alone() -> None:
    encoded = encode_outputs([np.array([np.inf]), Odd(), [np.nan]], 3)
    assert list(encoded.failures) == [1] and "Odd cannot be JSON" in encoded.failures[1]
    found = received(encoded, 3)
    assert found[1] is None and isinstance(found[0], TypedOutput) and isinstance(found[2], TypedOutput)


def test_arrays_that_differ_are_sent_as_arrays() -> None:
    ragged = encode_outputs([np.ones(2, np.float32), np.ones(3, np.float32)], 2)
    (column,) = ragged.columns
    assert (column.name, str(column.type), column.lengths, column.present) == ("", "float32[*]", (8, 12), None)
    assert str(learn_type(ragged)) == "float32[*]"
    several = encode_outputs([np.ones((1, 2), np.float32), np.ones(3), 7], 3)
    assert [str(each.type) for each in several.columns] == ["float32[*,*]", "float64[*]", "int64[]"]
    assert str(learn_type(several)) == "float32[*,*]", "the first decides"
    # An absent value takes no place.
    assert [len(each.payload) for each in several.columns] == [2 * 4 + 8, 24, 24]


def test_an_output_over_the_bound_fails_alone_among_others() -> None:
    mixed: list[Any] = [np.full(100, np.inf, np.float32), np.zeros(100), "b" * 500, [1, np.nan]]
    encoded = encode_outputs(mixed, 4)
    assert bounded(encoded, 4, 800) is encoded
    found = bounded(encoded, 4, 600)
    assert list(found.failures) == [1]
    assert [output is None for output in received(found, 4)] == [False, True, False, False]
    assert list(bounded(encoded, 4, 399).failures) == [0, 1, 2]


@pytest.mark.parametrize("names", [{"": [1.5, np.nan]}, {"a" * 300: [[1.5], [np.nan, 2]]}])
def test_names_that_no_column_has_are_json(names: Mapping[str, Any]) -> None:
    (name,) = names
    found = received(encode_outputs(names, 2), 2)
    assert isinstance(found[0], bytes) and list(json.loads(found[0])) == [name]
