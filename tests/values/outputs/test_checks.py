import contextlib
import json
from math import isfinite

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.values.outputs.as_inputs import field_of, items_of
from clipper.values.outputs.checks import NOT_JSON, check_output, read_texts
from clipper.values.outputs.conversion import Conversion
from clipper.values.records import parse_type

DIGITS = "1" + "0" * 400

INFINITE = [
    "1e999",
    "-1e999",
    "1E+999",
    "1e0400",
    "[1, -2e308]",
    '{"a": {"b": [1e400]}}',
    DIGITS + ".0",
    f"[-{DIGITS}e1]",
]
INFINITE += ["1" + "0" * 300 + "e20", '["1e5", 1e999]', '{"1e5": 9e308}']
FINITE = ["1e308", "-1e308", "1e-999", "[1.5e+300]", '"1e999"', '{"1e999": "-1e999"}', DIGITS, "true", '"e"', "1e05"]


@pytest.mark.parametrize("text", INFINITE)
def test_a_number_that_readers_take_for_infinity_fails_alone(text: str) -> None:
    failures = read_texts([b"1", text.encode(), b"[2.5]"], {})
    assert list(failures) == [1] and "not JSON" in failures[1] and "out of range" in failures[1]


@pytest.mark.parametrize("text", FINITE)
def test_numbers_that_float64_holds_and_texts_that_name_others_are_valid(text: str) -> None:
    assert read_texts([text.encode(), b"1"], {}) == {}


@given(
    digits=st.text("0123456789", min_size=1, max_size=420),
    fraction=st.text("0123456789", max_size=120),
    exponent=st.none() | st.tuples(st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 1000)),
    before=st.integers(0, 250),
)
@example("9" * 308, "", None, 0)
def test_a_number_is_valid_if_python_reads_it_as_finite(
    digits: str, fraction: str, exponent: tuple[str, str, int] | None, before: int
) -> None:
    number = (digits.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    if exponent is not None:
        letter, sign, power = exponent
        number += f"{letter}{sign}{power}"
    value = json.loads(number)
    is_valid = isinstance(value, int) or isfinite(value)
    text = ('{"' + "x" * before + '": [' + number + "]}").encode()
    assert (read_texts([text], {}) == {}) == is_valid


def test_failures_of_the_container_are_kept() -> None:
    assert read_texts([b"1", b"", b"nan"], {1: "raised"}) == {
        1: "raised",
        2: "the container's output is not JSON: Input data was truncated",
    }


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(NOT_JSON):
        check_output(b'"\xff"')


def deepest(form: bytes) -> int:
    """How deep lists may be nested in a text that is taken for JSON."""
    for depth in range(2000, 0, -1):
        with contextlib.suppress(*NOT_JSON):
            check_output(form % (b"[" * depth + b"]" * depth))
            return depth
    raise AssertionError(form)


@pytest.mark.parametrize("form", [b"%b", b'{"a":%b}', b"[%b]"])
def test_what_is_nearly_too_deep_fails_alone_where_it_is_read(form: bytes) -> None:
    """Where an output is read, more calls are open than where it was checked, and so fewer are left."""
    number, record = Conversion(parse_type("float64[*]")), Conversion(parse_type("a: float64"))
    most = deepest(form)
    for depth in range(most - 40, most + 1):
        text = form % (b"[" * depth + b"]" * depth)
        for read in (number.convert, record.convert, items_of, lambda output: field_of(output, "a")):
            with contextlib.suppress(ModelFailed):
                read(text)
