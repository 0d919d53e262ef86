"""A model's requirements are read from its file, in every form that the libraries write."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from clipper.client.packaging.models import package
from clipper.client.packaging.needs import needs_of
from clipper.client.packaging.pickles import look_into
from clipper.values.types import Framework

HERE = f"scikit-learn=={sklearn.__version__}"
# Words that a vocabulary may hold are no modules.
TEXTS = ["pandas torch", "sklearn xgboost", "a csklearn\nb\n"]


@pytest.fixture(scope="module")
def estimators() -> list[Any]:
    rows, labels = np.arange(24.0).reshape(12, 2), np.arange(12) % 2
    forest = RandomForestClassifier(3, random_state=0).fit(rows, labels)
    return [forest, make_pipeline(TfidfVectorizer(), LinearSVC()).fit(TEXTS, [0, 1, 0])]


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_tells_which_scikit_learn_wrote_it(tmp_path: Path, estimators: list[Any], protocol: int) -> None:
    for estimator in estimators:
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(estimator, protocol))
        assert needs_of("pickle", tmp_path / "model.pkl") == (HERE,)


@pytest.mark.parametrize("compression", [None, "zlib", "gzip", "bz2", "lzma", "xz"])
def test_so_does_a_joblib_file(tmp_path: Path, estimators: list[Any], compression: str | None) -> None:
    for estimator in estimators:
        joblib.dump(estimator, tmp_path / "model.joblib", compress=(compression, 3) if compression else 0)
        assert needs_of("joblib", tmp_path / "model.joblib") == ("joblib", HERE)


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_an_estimator_of_named_columns_needs_pandas(tmp_path: Path, protocol: int) -> None:
    """Its pickle does not refer to pandas, but it is asked with DataFrames."""
    frame = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]})
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LinearSVC().fit(frame, [0, 1]), protocol))
    assert needs_of("pickle", tmp_path / "model.pkl") == ("pandas", HERE)


def test_an_object_is_looked_at_like_a_file(estimators: list[Any]) -> None:
    with package(estimators[0]) as artifact:
        assert artifact.needs == (HERE,)
    with package(len) as artifact:
        assert artifact.needs == ()


@pytest.mark.parametrize(
    ("version", "needs"),
    [
        ("1.5.2", ("scikit-learn==1.5.2",)),
        ("1.3.0", ("numpy<2", "scikit-learn==1.3.0")),
        ("1.6.dev0", ("scikit-learn",)),
    ],
)
def test_old_versions_need_old_numpy_and_no_version_is_made_up(
    tmp_path: Path, estimators: list[Any], version: str, needs: tuple[str, ...]
) -> None:
    here = sklearn.__version__.encode()
    text = pickle.dumps(estimators[0]).replace(bytes([len(here)]) + here, bytes([len(version)]) + version.encode())
    (tmp_path / "model.pkl").write_bytes(text)
    assert needs_of("pickle", tmp_path / "model.pkl") == needs


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_nothing_is_run_and_nothing_fails(data: bytes) -> None:
    for begin in (b"", b"\x80\x04", b"\x78\x9c", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"):
        found = look_into(begin + data)
        assert all(module.isidentifier() for module in found.modules)


@pytest.mark.parametrize("begin", [b"", b"\x78\x9c", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x5d\0"])
def test_a_damaged_file_needs_nothing(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "model.pkl").write_bytes(begin + b"no such thing")
    assert needs_of("pickle", tmp_path / "model.pkl") == ()


UBJ_VERSION = b"L\0\0\0\0\0\0\0\x07version[#L\0\0\0\0\0\0\0\x03i\x03i\x02i\x00}"


@pytest.mark.parametrize(
    ("content", "need"),
    [
        (b'{"learner":{},"version":[3,2,0]}', "xgboost-cpu==3.2.0"),
        (b'{"learner":{}, "version": [1, 7, 6]}', "xgboost-cpu"),
        (b"{L\0\0\0\0\0\0\0\x07learner{}" + UBJ_VERSION, "xgboost-cpu==3.2.0"),
        (b'{"learner":{}}', "xgboost-cpu"),
    ],
)
def test_xgboost_tells_its_version(tmp_path: Path, content: bytes, need: str) -> None:
    (tmp_path / "model").write_bytes(content)
    assert needs_of("xgboost", tmp_path / "model") == (need,)


def test_keras_tells_its_version(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
    assert needs_of("keras", tmp_path / "model.keras") == ("keras==3.15.1", "tensorflow-cpu")
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert needs_of("keras", tmp_path / "model.h5") == ("keras", "tensorflow-cpu")


def test_spark_tells_its_version(tmp_path: Path) -> None:
    assert needs_of("spark", tmp_path) == ("pyspark",)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "part-00000").write_text('{"class":"org.apache.spark.ml.X","sparkVersion":"4.3.0"}\n')
    assert needs_of("spark", tmp_path) == ("pyspark==4.3.0",)


def test_mlflow_lists_what_it_needs(tmp_path: Path) -> None:
    assert needs_of("mlflow", tmp_path) == ("pandas",)
    (tmp_path / "requirements.txt").write_text("mlflow==3.4.0\n# more\nscikit-learn==1.7.2\n")
    (tmp_path / "python_env.yaml").write_text("python: 3.12.1\nbuild_dependencies:\n- pip==24\n")
    assert needs_of("mlflow", tmp_path) == ("mlflow==3.4.0", "pandas", "python==3.12", "scikit-learn==1.7.2")


@pytest.mark.parametrize(
    ("framework", "need"),
    [
        ("onnx", "onnxruntime"),
        ("lightgbm", "lightgbm"),
        ("torchscript", "torch"),
        ("tensorflow", "tensorflow-cpu"),
        ("caffe", "opencv-python-headless<5"),
    ],
)
def test_others_need_their_runtime(tmp_path: Path, framework: Framework, need: str) -> None:
    assert needs_of(framework, tmp_path) == (need,)
