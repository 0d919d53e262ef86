"""Models are trained once."""

from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

from benchmarks.paper.data import Labelled
from benchmarks.paper.training import libsvm, small_forests, trained

RANDOM = np.random.default_rng(0)
DATA = Labelled(RANDOM.normal(size=(200, 4)), RANDOM.integers(0, 3, 200))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_same_recipe_and_data_are_trained_once() -> None:
    first = trained(GaussianNB(), DATA)
    made_ns = first.stat().st_mtime_ns
    assert trained(GaussianNB(), DATA) == first
    assert first.stat().st_mtime_ns == made_ns
    assert joblib.load(first).predict(DATA.inputs).shape == (200,)
    assert [path.name for path in first.parent.iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("estimator", "data"),
    [
        (GaussianNB(var_smoothing=1e-3), DATA),
        (GaussianNB(), DATA[:150]),
        (GaussianNB(), Labelled(DATA.inputs, DATA.labels[::-1])),
    ],
)
def test_another_recipe_or_data_is_another_model(estimator: GaussianNB, data: Labelled) -> None:
    assert trained(estimator, data) != trained(GaussianNB(), DATA)


def test_small_forests_differ() -> None:
    forests = [joblib.load(path) for path in small_forests(DATA, 3)]
    outputs = [forest.predict(DATA.inputs).tolist() for forest in forests]
    assert outputs[0] != outputs[1] != outputs[2]


def test_rows_for_spark_leave_out_what_is_zero() -> None:
    assert libsvm(3, [0.0, 255.0, 0.5, 0.0]) == b"3 2:255 3:0.5"
