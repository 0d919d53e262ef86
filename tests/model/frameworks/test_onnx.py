"""ONNX graphs through Clipper's runtime, against onnxruntime itself."""

import pytest

from tests.model.frameworks.framework_cases import Told, told_of

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def told() -> Told:
    return told_of("onnx", ("magika==1.0.3", "silero-vad==6.2.3"))


def test_answers_are_the_librarys_own(told: Told) -> None:
    assert len(told.served) == 24
    assert told.wrong() == {} and told.broken() == {}


@pytest.mark.parametrize(
    ("case", "takes", "max_batch"),
    [
        ("array.onnx", "float32[64]", None),
        ("bytes for floats", "uint8[64]", None),
        ("texts", "string", None),
        ("magika", "int32[2048]", None),
        ("recurrent", "input: float32[*,*], state: float32[2,*,128], sr: int64", 1),
        ("any size", "float32[2,*,*]", None),
        ("one row at a time", "float32[3]", 1),
        ("no dimension for rows", "float32[3]", 1),
        ("two inputs", "a: int32[2], b: int32[2]", None),
        ("two inputs as texts", "string", None),
    ],
)
def test_what_a_graph_takes(told: Told, case: str, takes: str, max_batch: int | None) -> None:
    assert (told.answers[case].takes, told.answers[case].max_batch) == (takes, max_batch)
    assert told.answers[case].runtime.endswith(", onnxruntime 1.32.0")


@pytest.mark.parametrize(
    ("case", "gives"),
    [
        ("array.onnx", "int64[]"),
        ("array.onnx both", "label: int64, probabilities: float32[10]"),
        # Converters make maps of probabilities by default. They are as scikit-learn gives them.
        ("mapped.onnx", "int64[]"),
        ("mapped.onnx probabilities", "float32[10]"),
        ("mapped.onnx both", "label: int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, probabilities: float32[10]"),
        ("by class", ", ".join(f'"{label}": float32' for label in range(10))),
        ("texts", "string"),
        ("magika labels", "int64[]"),
        ("one row at a time", "float32[3]"),
        ("two inputs", "sum: int32[2], product: int32[2]"),
        ("not finite", "float32[2]"),
        ("no dimension for rows", "float32[1]"),
        # It cannot be tried with zeros, or does not keep what it says.
        ("recurrent", None),
        ("another shape than stated", None),
    ],
)
def test_what_a_graph_gives(told: Told, case: str, gives: str | None) -> None:
    assert told.answers[case].gives == gives


def test_a_row_that_lacks_an_input_fails_alone(told: Told) -> None:
    (failure,) = told.answers["an input is absent"].failures
    assert "the model takes the text of a JSON object with a, b: got a" in failure


def test_an_output_without_a_value_for_each_row_is_no_answer(told: Told) -> None:
    failures = told.answers["one value for all rows"].failures
    assert len(failures) == 2
    assert all("output y has shape [1, 1] for 2 inputs: expected one value for each input" in each for each in failures)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no such output", "array.onnx has no output logits: it has label, probabilities, labels; deploy it with"),
        ("wrong length", "input type float32[63] does not suit array.onnx, which takes float32[64]"),
        ("complex numbers", "onnx model complex.onnx cannot be loaded"),
        ("damaged", "onnx model damaged.onnx cannot be loaded"),
    ],
)
def test_a_graph_that_cannot_be_served(told: Told, case: str, says: str) -> None:
    assert told.refusals[case].startswith(says)
    assert len(told.refusals) == 4
