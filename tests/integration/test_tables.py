"""Models of tables, deployed from their files alone and asked over HTTP: what people bring."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from clipper import Clipper
from clipper.errors import ContainerFailed, WrongInput
from scripts.real_models import environment
from tests.model.frameworks.framework_cases import FIRST_RUN, made_models
from tests.supervisor.live_server import Server

FRAME = pd.DataFrame({"age": [22.0, 38.0, np.nan, 35.0] * 5, "sex": ["male", "female", "female", None] * 5})
SURVIVED = np.array([0, 1, 1, 0] * 5)
ROWS: list[dict[str, Any]] = [{"age": 22, "sex": "male"}, {"sex": None, "age": 38.5}, {"age": None, "sex": "female"}]


@pytest.fixture(scope="module")
def clipper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clipper]:
    server = Server(tmp_path_factory.mktemp("tables") / "home").start()
    try:
        with Clipper.connect(home=server.home) as connected:
            yield connected
        assert server.stop() == 0
    finally:
        server.clean_up()


def saved(folder: Path, model: Any) -> Path:
    """Save an estimator with the functions of this file, as one from a notebook."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    return folder / "model.pkl"


def test_a_pipeline_of_named_columns_takes_objects_and_missing_values(clipper: Clipper, tmp_path: Path) -> None:
    columns = ColumnTransformer(
        [("n", SimpleImputer(), ["age"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["sex"])]
    )
    fitted = make_pipeline(columns, LogisticRegression()).fit(FRAME, SURVIVED)
    version = clipper.deploy("titanic", saved(tmp_path, fitted))
    assert (version.input_type, version.warning) == ("age: float64?, sex: string?", None)
    clipper.create_application("titanic", model="titanic", slo_ms=20_000)
    expected = fitted.predict(pd.DataFrame(ROWS)).tolist()
    assert [clipper.predict("titanic", row).output for row in ROWS] == expected
    with pytest.raises(WrongInput, match="age"):
        clipper.predict("titanic", {"age": "old", "sex": "male"})


def lengths(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.apply(lambda column: column.astype(str).str.len())


def test_what_is_not_known_is_asked_for_and_settled_by_a_sample(clipper: Clipper, tmp_path: Path) -> None:
    frame = FRAME.assign(street=["Main", "High"] * 10)
    columns = make_column_transformer((FunctionTransformer(lengths), ["street"]), (SimpleImputer(), ["age"]))
    path = saved(tmp_path, make_pipeline(columns, LinearRegression()).fit(frame, SURVIVED))
    with pytest.raises(ContainerFailed, match=r"columns street: .* --input-type 'age: float64, street: string'"):
        clipper.deploy("street", path)
    version = clipper.deploy("street", path, sample=[{"street": "Main", "age": 31, "survived": 1}])
    assert version.input_type == "age: float64?, street: string"


def known_street(frame: pd.DataFrame) -> pd.DataFrame:
    if not frame["street"].isin(["Main", "High"]).all():
        raise ValueError("no such street")
    return frame[["street"]] == "Main"


@pytest.mark.long
def test_a_failure_on_a_made_row_is_a_warning_and_on_a_sample_is_not(clipper: Clipper, tmp_path: Path) -> None:
    frame = pd.DataFrame({"street": ["Main", "High"] * 10})
    fitted = make_pipeline(FunctionTransformer(known_street), LinearRegression()).fit(frame, SURVIVED)
    path = saved(tmp_path, fitted)
    version = clipper.deploy("address", path, input_type="street: string")
    assert "no such street" in (version.warning or "")
    with pytest.raises(ContainerFailed, match=r"failed on its sample: .*no such street"):
        clipper.deploy("address", path, input_type="street: string", sample={"street": "Low"})
    version = clipper.deploy("address", path, input_type="street: string", sample={"street": "High"})
    assert version.warning is None


@pytest.mark.long
@FIRST_RUN
@pytest.mark.parametrize(
    "name", ["mlflow, titanic", "lightgbm, credits, file", "xgboost, penguins, file", "ames, native categories"]
)
def test_the_files_of_other_libraries_answer_as_they_do(clipper: Clipper, name: str) -> None:
    folder = made_models("tables")
    case = dict(json.loads((folder / "cases.json").read_text())[name])
    model = name.partition(",")[0]
    clipper.deploy(
        model,
        folder / case["target"],
        python=str(environment("tables")),
        output=case.get("output"),
        start_timeout_s=200,
    )
    clipper.create_application(model, model=model, slo_ms=20_000)
    outputs = [clipper.predict(model, row).output for row in case["inputs"]]
    assert np.allclose(np.array(outputs, float), np.array(case["expected"], float), rtol=1e-6)
