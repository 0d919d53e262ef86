"""Spark MLlib's models and pipelines on its own sample of digits, against its ``transform``."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.real_models import exported
from tests.model.runtime.framework_desk import Desk, Refused, desk, near
from tests.waiting import until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def models() -> Path:
    return exported("spark_models", "spark")


@pytest.fixture(scope="module")
def spark() -> Iterator[Desk]:
    with desk("spark") as process:
        yield process
        java = children(process.process.pid)
    [pid] = java
    # It ends with the process that started it, a little later.
    until(lambda: not Path(f"/proc/{pid}").exists())


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.fixture(scope="module")
def inputs(models: Path) -> np.ndarray:
    return np.load(models / "inputs.npy")


def answers(path: Path) -> tuple[list[float], list[list[float]]]:
    """The results of ``transform`` on the inputs: predictions, and probabilities of both classes."""
    predictions, probabilities = zip(*json.loads(path.read_text()))
    return list(predictions), list(probabilities)


def test_a_models_answers_are_those_of_transform(spark: Desk, models: Path, inputs: np.ndarray) -> None:
    model = spark.load(models / "logistic", "spark")
    assert (model.input_type, model.max_batch) == ("float64[692]", None)
    assert "pyspark 4." in model.runtime
    predictions, probabilities = answers(models / "logistic.json")
    assert model.predict(inputs) == predictions
    assert spark.load(models / "logistic", "spark", output="probabilities").predict(inputs) == probabilities
    named = spark.load(models / "logistic", "spark", output="prediction,probability").predict(inputs[:1])
    assert named == [{"prediction": predictions[0], "probability": probabilities[0]}]


def test_a_pipelines_answers_are_those_of_transform(spark: Desk, models: Path, inputs: np.ndarray) -> None:
    model = spark.load(models / "scaled", "spark", output="labels,probabilities")
    assert model.input_type == "float64[692]"
    rows = model.predict(inputs)
    predictions, probabilities = answers(models / "scaled.json")
    assert [row["labels"] for row in rows] == predictions
    assert near([row["probabilities"] for row in rows], probabilities, 1e-12)


def test_labels_are_those_that_the_pipeline_was_fitted_on(spark: Desk, models: Path) -> None:
    model = spark.load(models / "texts", "spark")
    assert model.input_type == "string"
    assert model.predict(["spark is fast", "slow is not"]) == ["yes", "no"]
    assert spark.load(models / "texts", "spark", output="prediction").predict(["slow is not"]) == [0.0]


def test_columns_of_numbers_are_a_record_or_a_list(spark: Desk, models: Path) -> None:
    model = spark.load(models / "numbers", "spark")
    assert model.input_type.count("float64") == 2
    names = [part.partition(":")[0] for part in model.input_type.split(", ")]
    rows = [dict(zip(names, row)) for row in ([1.0, 2.0], [4.0, 4.0])]
    assert near(model.predict(rows), [8.0, 20.0], 1e-6)
    listed = spark.load(models / "numbers", "spark", input_type="float64[2]")
    assert near(listed.predict(np.array([[1.0, 2.0], [4.0, 4.0]])), [8.0, 20.0], 1e-6)


def test_a_model_without_probabilities(spark: Desk, models: Path, inputs: np.ndarray) -> None:
    clusters = spark.load(models / "clusters", "spark").predict(inputs[:8])
    assert set(clusters) == {0, 1}
    with pytest.raises(Refused, match="clusters has no output probabilities: it has labels, label, prediction"):
        spark.load(models / "clusters", "spark", output="probabilities")


def test_a_folder_of_something_else(spark: Desk, tmp_path: Path) -> None:
    (tmp_path / "old" / "metadata").mkdir(parents=True)
    with pytest.raises(Refused, match=r"old has no metadata/part-…: expected what a model's save\(\) wrote"):
        spark.load(tmp_path / "old", "spark")
    old = {"class": "org.apache.spark.mllib.clustering.KMeansModel"}
    (tmp_path / "old" / "metadata" / "part-00000").write_text(json.dumps(old))
    with pytest.raises(Refused, match=r"holds a org\.apache\.spark\.mllib\.\S+: expected a model of pyspark\.ml"):
        spark.load(tmp_path / "old", "spark")
