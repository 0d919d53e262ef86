"""Numbers are read alike with simdjson and without."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import ClipperError
from clipper.values.inputs import number_parser
from clipper.values.inputs.number_parser import ListParser
from clipper.values.inputs.reader import NumberReader
from clipper.values.types import InputType
from tests.example_counts import share_of
from tests.waiting import TIMEOUT_S

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["1.0", "-0", "1e400", "01", "null", "true", '"1"', "1.", ".5", "NaN", "[1]", ""]),
)
TYPES = ("float64[*]", "float64[3]", "float32[*]", "int64[*]", "int32[3]", "uint8[*]", "float64[1,3]")


def read(reader: NumberReader, text: bytes) -> bytes | str:
    try:
        return reader.read(text)
    except ClipperError as error:
        return f"{error.code}: {error}"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="simdjson has no wheel")
@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=share_of(200), deadline=None)
@given(numbers=st.lists(NUMBERS, max_size=5))
def test_rows_and_errors_are_equal(kind: str, numbers: list[str]) -> None:
    text = f"[{', '.join(numbers)}]".encode()
    with_simdjson, without = NumberReader(InputType.parse(kind)), NumberReader(InputType.parse(kind))
    assert number_parser.Parser is not ListParser
    without._parser = ListParser()
    assert read(without, text) == read(with_simdjson, text)


def test_nothing_needs_simdjson() -> None:
    code = (
        "import sys; sys.modules['simdjson'] = None\n"
        "import clipper.worker.__main__\n"
        "from clipper.values.inputs.reader import NumberReader\n"
        "from clipper.values.types import InputType\n"
        "assert len(NumberReader(InputType.parse('float64[3]')).read(b'[1, 2.5, 3]')) == 24\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S)
