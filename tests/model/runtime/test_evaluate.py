import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.model import Inputs
from clipper.model.protocol.messages import OUTPUT_TOO_LARGE
from clipper.model.runtime.evaluate import MAX_EXTRA_S, MAX_MESSAGE_CHARACTERS, NOT_ISOLATED, bounded, evaluate


def reader(rows: int) -> Callable[[], Inputs]:
    return lambda: np.arange(rows, dtype=np.float64)


class Model:
    """Doubles; raises if a batch has one of ``bad``. It changes what it is given."""

    def __init__(self, bad: set[int], error: type[BaseException] = ValueError) -> None:
        self.bad, self.error, self.calls = bad, error, 0

    def __call__(self, inputs: Inputs) -> object:
        self.calls += 1
        found = self.bad & {int(each) for each in inputs}
        inputs *= 2
        if found:
            raise self.error(f"bad {min(found)}")
        return inputs


def stopped_clock() -> float:
    return 0.0


@given(st.integers(1, 300), st.data())
def test_bad_inputs_fail_alone_however_many_there_are(rows: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, rows - 1)))
    model = Model(bad)
    encoded = evaluate(model, reader(rows), stopped_clock)
    assert set(encoded.failures) == bad
    for row, line in enumerate(encoded.text.split(b"\n")):
        assert line == (b"" if row in bad else repr(row * 2.0).encode())
    for row in bad:
        assert encoded.failures[row].startswith(f"ValueError: bad {row} (test_evaluate.py:")
    assert model.calls <= min(2 * rows, 1 + 2 * len(bad) * (rows - 1).bit_length())


@given(st.integers(2, 200), st.integers(0, 60), st.data())
def test_no_error_reaches_another_input_when_the_time_is_over(rows: int, calls: int, data: st.DataObject) -> None:
    """So many extra calls fit into the time. An input that was not told apart fails without the words of an input."""
    bad = data.draw(st.sets(st.integers(0, rows - 1), min_size=1))
    model, ticks = Model(bad), itertools.count(-1)
    encoded = evaluate(model, reader(rows), lambda: MAX_EXTRA_S * next(ticks) / max(calls, 0.5))
    assert model.calls <= 2 + calls
    assert bad <= set(encoded.failures)
    for row, message in encoded.failures.items():
        assert message == NOT_ISOLATED or (row in bad and message.startswith(f"ValueError: bad {row} "))


def test_the_largest_parts_are_tried_first() -> None:
    model, ticks = Model({0, 1, 2, 3}), itertools.count()
    encoded = evaluate(model, reader(64), lambda: MAX_EXTRA_S * next(ticks) / 6)
    assert set(encoded.failures) == set(range(8))


@pytest.mark.parametrize("error", [SystemExit, MemoryError, RecursionError, GeneratorExit])
def test_whatever_the_model_raises_is_an_answer(error: type[BaseException]) -> None:
    encoded = evaluate(Model({1}, error), reader(3), stopped_clock)
    assert encoded.text == b"0.0\n\n4.0"
    assert encoded.failures[1].startswith(error.__name__)


def test_a_wish_to_end_is_not_an_answer() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(Model({1}, KeyboardInterrupt), reader(3))


def test_message_is_shortened() -> None:
    def model(inputs: Inputs) -> object:
        raise ValueError("x" * 100_000)

    (message,) = evaluate(model, reader(1)).failures.values()
    assert len(message) < MAX_MESSAGE_CHARACTERS + 100
    assert message.startswith("ValueError: xxx")


def test_wrong_count_fails_the_batch_and_is_not_tried_again() -> None:
    calls = []

    def model(inputs: Inputs) -> object:
        calls.append(len(inputs))
        return [1]

    with pytest.raises(ModelFailed, match="returned 1 outputs for 4 inputs"):
        evaluate(model, reader(4))
    assert calls == [4]


def test_outputs_that_raise_when_read_fail_the_batch() -> None:
    class Lazy:
        def tolist(self) -> object:
            raise RuntimeError("lost on the way")

    with pytest.raises(ModelFailed, match="Lazy cannot be read: RuntimeError: lost on the way"):
        evaluate(lambda inputs: Lazy(), reader(2))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_inputs_of_several_lengths_reach_the_model_as_one_array_a_length(lengths: list[int]) -> None:
    calls: list[tuple[int, ...]] = []

    def total(inputs: Inputs) -> object:
        assert isinstance(inputs, np.ndarray)
        calls.append(inputs.shape)
        return inputs.sum(1)

    encoded = evaluate(total, lambda: [np.full(length, 2.0) for length in lengths])

    assert encoded.text.split(b"\n") == [repr(2.0 * length).encode() for length in lengths]
    assert sorted(calls) == sorted((lengths.count(length), length) for length in set(lengths))


def test_a_length_that_the_model_cannot_take_fails_alone() -> None:
    def second(inputs: Inputs) -> object:
        assert isinstance(inputs, np.ndarray)
        return inputs[:, 1] if inputs.shape[1] != 3 else []

    encoded = evaluate(second, lambda: [np.arange(length) for length in (2, 1, 3, 2)])

    assert encoded.text.split(b"\n") == [b"1", b"", b"", b"1"]
    assert encoded.failures[1].startswith("IndexError")
    assert "0 outputs" in encoded.failures[2]


def test_parts_of_a_batch_that_are_arrays_make_an_array() -> None:
    answer = np.zeros((1, 2), np.float32)

    def model(inputs: Inputs) -> object:
        if 3.0 in inputs:
            raise ValueError("three")
        nonlocal answer
        if len(answer) != len(inputs):
            answer = np.zeros((len(inputs), 2), np.float32)
        answer[:] = np.asarray(inputs)[:, None]  # the same array each time, as some frameworks do
        return answer

    encoded = evaluate(model, reader(8), stopped_clock)
    assert encoded.array is not None and list(encoded.failures) == [3]
    assert encoded.array[:, 1].tolist() == [0, 1, 2, 0, 4, 5, 6, 7]
    assert encoded.lines().split(b"\n")[2:5] == [b"[2.0,2.0]", b"", b"[4.0,4.0]"]


@pytest.mark.parametrize("shape", [(2,), (3,)])
def test_inputs_of_several_lengths_make_an_array_if_outputs_are_alike(shape: tuple[int, ...]) -> None:
    inputs = [np.ones(2), np.ones(3), np.ones(2)]

    def model(batch: Inputs) -> object:
        width = shape[0] if np.shape(batch)[1] == 3 else 2
        return np.full((len(batch), width), np.asarray(batch).sum(1)[:, None])

    encoded = evaluate(model, lambda: [array.copy() for array in inputs])
    assert (encoded.array is None) == (shape == (3,))
    assert [len(line.split(b",")) for line in encoded.lines().split(b"\n")] == [2, shape[0], 2]


def test_outputs_over_the_bound_stay_in_the_container() -> None:
    texts = evaluate(lambda inputs: ["a", "b" * 100, "c"], reader(3))
    found = bounded(texts, 3, 50)
    assert found.text == b'"a"\n\n"c"' and list(found.failures) == [1]
    assert found.failures[1].startswith(f"{OUTPUT_TOO_LARGE}output has 102 bytes: expected at most 50")
    assert bounded(texts, 3, 102) == texts
    arrays = evaluate(lambda inputs: np.zeros((3, 10), np.float32), reader(3))
    assert bounded(arrays, 3, 40) is arrays
    found = bounded(arrays, 3, 39)
    assert found.array is None and found.text == b"\n\n" and list(found.failures) == [0, 1, 2]


def test_an_array_is_as_large_whatever_it_is_in_a_batch_with() -> None:
    array = np.full(100, 1.1, np.float32)
    mixed = evaluate(lambda inputs: [array, "a", "b" * 500], reader(3))
    assert [str(column.type) for column in mixed.columns] == ["float32[*]", "string"]
    assert list(bounded(mixed, 3, 450).failures) == [2]
    assert list(bounded(mixed, 3, 399).failures) == [0, 2]
    shapes = evaluate(
        lambda inputs: np.full((len(inputs), 100 if inputs[0].sum() < 0 else 2), 1.1, np.float32),
        lambda: [np.full(3, -1.0), np.full(4, 1.0)],
    )
    assert list(bounded(shapes, 2, 450).failures) == [] and list(bounded(shapes, 2, 399).failures) == [0]


def named(inputs: Inputs) -> object:
    if 3.0 in inputs:
        raise ValueError("three")
    array = np.asarray(inputs)
    return {"label": [str(number) for number in array], "twice": np.stack([array, array], 1)}


def test_parts_of_a_batch_with_names_make_columns() -> None:
    encoded = evaluate(named, reader(8), stopped_clock)
    label, twice = encoded.columns
    assert list(encoded.failures) == [3]
    assert np.frombuffer(twice.payload).reshape(8, 2)[:, 0].tolist() == [0, 1, 2, 0, 4, 5, 6, 7]
    assert label.lengths == (3, 3, 3, 0, 3, 3, 3, 3)
    assert encoded.lines().split(b"\n")[2:4] == [b'{"label":"2.0","twice":[2.0,2.0]}', b""]


def test_parts_with_other_names_or_types_are_json() -> None:
    def model(inputs: Inputs) -> object:
        total = np.asarray(inputs).sum(1)
        if np.shape(inputs)[1] == 1:
            return {"sum": total.astype(int)}
        return {"sum": total} if np.shape(inputs)[1] == 2 else {"all": total}

    for lengths, expected in (((1, 2), [{"sum": 1}, {"sum": 2.0}]), ((2, 3), [{"sum": 2.0}, {"all": 3.0}])):
        encoded = evaluate(model, lambda lengths=lengths: [np.ones(length) for length in lengths])
        assert encoded.columns == () and [json.loads(line) for line in encoded.lines().split(b"\n")] == expected


def test_parts_with_arrays_of_several_lengths_make_a_ragged_column() -> None:
    def model(inputs: Inputs) -> object:
        return {"same": np.asarray(inputs).astype(np.float32)}

    encoded = evaluate(model, lambda: [np.ones(2), np.ones(1), np.ones(2)])
    (column,) = encoded.columns
    assert (str(column.type), column.lengths) == ("float32[*]", (8, 4, 8))


def test_numbers_that_are_not_finite_stay_numbers_in_a_batch_of_parts() -> None:
    def model(inputs: Inputs) -> object:
        total = np.asarray(inputs).sum(1).astype(np.float32)
        return total if np.shape(inputs)[1] == 1 else total * np.inf

    encoded = evaluate(model, lambda: [np.ones(1), np.ones(2), np.full(1, 0.1)])
    texts, numbers = encoded.columns
    assert texts.is_json and bytes(texts.payload) == b"1.00.10000000149011612"
    assert np.frombuffer(numbers.payload, np.float32)[1] == math.inf


def test_outputs_with_names_over_the_bound() -> None:
    texts = ["a", "b" * 100, "c"]
    encoded = evaluate(lambda inputs: {"text": texts, "number": np.zeros(3)}, reader(3))
    assert bounded(encoded, 3, 108) is encoded
    found = bounded(encoded, 3, 107)
    assert [column.lengths for column in found.columns] == [(1, 0, 1), None]
    assert found.failures[1].startswith(f"{OUTPUT_TOO_LARGE}output has 108 bytes: expected at most 107")
    assert bounded(encoded, 3, 8).text == b"\n\n"
    alone = evaluate(lambda inputs: {"text": ["b" * 100, None]}, reader(2))
    assert bounded(alone, 2, 50).lines() == b'\n{"text":null}'


def test_a_record_is_as_large_whatever_it_is_in_a_batch_with() -> None:
    array = np.full(100, 1.1, np.float32)
    rows = [{"scores": array}, {"scores": "b" * 500}, {"scores": array[:1]}]
    mixed = evaluate(lambda inputs: rows, reader(3))
    assert mixed.columns == () and len(mixed.text.split(b"\n")[0]) > 1500
    assert list(bounded(mixed, 3, 450).failures) == [1]
    assert list(bounded(mixed, 3, 399).failures) == [0, 1]
    assert list(bounded(mixed, 3, 500).failures) == []
