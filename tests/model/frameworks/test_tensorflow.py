"""TensorFlow's SavedModels and Keras' archives on real digits, against Keras itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.real_models import exported
from tests.model.runtime.framework_desk import Desk, Refused, desk, near, sample

pytestmark = pytest.mark.long

DIGITS = sample("sklearn", "datasets/data/digits.csv.gz")
FORMS = [("keras", "network.keras"), ("keras", "sequential.keras"), ("keras", "network.h5"), ("tensorflow", "network")]


@pytest.fixture(scope="module")
def networks() -> Path:
    return exported("digit_networks", "tensorflow", DIGITS)


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Desk]:
    with desk("tensorflow") as process:
        yield process


@pytest.fixture(scope="module")
def images(networks: Path) -> np.ndarray:
    return np.load(networks / "inputs.npy")


@pytest.mark.parametrize(("framework", "name"), FORMS)
def test_answers_are_those_of_keras(
    tensorflow: Desk, networks: Path, images: np.ndarray, framework: str, name: str
) -> None:
    model = tensorflow.load(networks / name, framework)
    assert (model.input_type, model.max_batch) == ("float32[8,8,1]", None)
    assert model.output_type == "float32[10]"
    assert "tensorflow 2." in model.runtime
    assert ("keras 3." in model.runtime) == (framework == "keras")
    answers = np.load(networks / "answers.npy")
    assert near(model.predict(images), answers)
    assert near(model.predict(images[:1]), answers[:1])


@pytest.mark.parametrize(("framework", "name"), [FORMS[0], FORMS[1], FORMS[3]])
def test_labels_are_the_digits(tensorflow: Desk, networks: Path, images: np.ndarray, framework: str, name: str) -> None:
    model = tensorflow.load(networks / name, framework, output="labels")
    labels = model.predict(images)
    assert model.output_type == "int64[]"
    assert labels == np.load(networks / "answers.npy").argmax(axis=1).tolist()
    assert np.mean(np.load(networks / "labels.npy") == labels) > 0.85


@pytest.mark.parametrize(("framework", "name"), [("keras", "two_headed.keras"), ("tensorflow", "two_headed")])
def test_several_outputs_by_name(
    tensorflow: Desk, networks: Path, images: np.ndarray, framework: str, name: str
) -> None:
    ink, digits = images.mean(axis=(1, 2)), np.load(networks / "answers.npy")
    model = tensorflow.load(networks / name, framework)
    all_of_them = model.predict(images)
    assert model.output_type == "digit: float32[10], ink: float32[1]"
    assert near([row["digit"] for row in all_of_them], digits)
    assert near([row["ink"] for row in all_of_them], ink)
    assert near(tensorflow.load(networks / name, framework, output="ink").predict(images), ink)
    with pytest.raises(Refused, match="has no output colour: it has digit, ink"):
        tensorflow.load(networks / name, framework, output="colour")


@pytest.mark.parametrize(("framework", "name"), [("keras", "two_inputs.keras"), ("tensorflow", "two_inputs")])
def test_several_inputs_are_a_record(tensorflow: Desk, networks: Path, framework: str, name: str) -> None:
    model = tensorflow.load(networks / name, framework)
    assert (model.input_type, model.max_batch) == ("age: float32, pixels: float32[2,2]", None)
    rows = [{"pixels": [[1, 2], [3, 4]], "age": 31}, {"age": 5, "pixels": [[0, 0], [0, 9]]}]
    assert near(model.predict(rows), np.load(networks / "two_inputs.npy"))


def test_texts_in_batches_of_a_fixed_size(tensorflow: Desk, networks: Path) -> None:
    model = tensorflow.load(networks / "words", "tensorflow")
    assert (model.input_type, model.max_batch, model.output_type) == ("string", 4, "bytes: int32, upper: string")
    assert model.predict(["one", "né"]) == [{"bytes": 3, "upper": "ONE"}, {"bytes": 3, "upper": "NÉ"}]
    assert len(model.predict(["a", "b", "c", "d"])) == 4
    as_bytes = tensorflow.load(networks / "words", "tensorflow", input_type="bytes", output="bytes")
    assert (as_bytes.input_type, as_bytes.predict(["four"])) == ("bytes", [4])


def test_numbers_of_another_type_are_converted(tensorflow: Desk, networks: Path, images: np.ndarray) -> None:
    model = tensorflow.load(networks / "network", "tensorflow", input_type="float64[8,8,1]")
    assert model.input_type == "float64[8,8,1]"
    assert near(model.predict(images), np.load(networks / "answers.npy"))


@pytest.mark.parametrize(("framework", "name"), FORMS)
def test_a_reserved_gpu_that_is_not_there_is_said(tensorflow: Desk, networks: Path, framework: str, name: str) -> None:
    assert tensorflow.load(networks / name, framework, has_gpu=True).device == "CPU"
    assert tensorflow.load(networks / name, framework).device == ""


def test_python_code_in_an_archive_is_not_run(tensorflow: Desk, networks: Path) -> None:
    with pytest.raises(Refused, match=r"cannot be loaded: ValueError: .*Lambda"):
        tensorflow.load(networks / "with_code.keras", "keras")


def test_a_saved_model_without_signature(tensorflow: Desk, networks: Path) -> None:
    with pytest.raises(Refused, match="has no signature serving_default, it has none: save it with"):
        tensorflow.load(networks / "without_signature", "tensorflow")


def test_whether_scores_are_probabilities_is_not_guessed(tensorflow: Desk, networks: Path) -> None:
    with pytest.raises(Refused, match="does not say whether its outputs are probabilities"):
        tensorflow.load(networks / "network.keras", "keras", output="probabilities")
