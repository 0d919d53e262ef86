"""Estimators that were fitted on DataFrames: what they take is found, and they answer as in their own process."""

import json
import shlex
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from clipper.errors import ContainerFailed
from clipper.model.frameworks.estimator_columns import find_record
from clipper.model.frameworks.frames import framing
from clipper.model.protocol.columns import PredictColumns
from clipper.model.runtime.evaluate import evaluate
from clipper.model.runtime.inputs import input_reader
from clipper.model.runtime.loading import ModelSource, load
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType

FRAME = pd.DataFrame(
    {
        "age": [22.0, 38.0, np.nan, 35.0, 54.0, 2.0] * 5,
        "sex": ["male", "female", "female", "male", None, "male"] * 5,
        "pclass": [3, 1, 3, 1, 2, 3] * 5,
        "ticket": ["A/5 21171", "PC 17599", "STON 3101282", "113803", "373450", "330877"] * 5,
    }
)
SURVIVED = np.array([0, 1, 1, 1, 0, 0] * 5)


def titanic(*more: Any) -> Any:
    """The documentation's pipeline of columns of mixed types."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("n", numbers, ["age"]), ("c", texts, ["sex"]), *more])
    return make_pipeline(columns, LogisticRegression())


def saved(folder: Path, model: Any, **source: Any) -> Any:
    joblib.dump(model, folder / "m.joblib")
    return load(ModelSource(folder, "file", "m.joblib", **source))


def answered(model: Any, frame: pd.DataFrame) -> list[Any]:
    """The container's answers to the rows of a frame, which come as columns."""
    record = model.input_type
    assert isinstance(record, RecordType)
    rows = RecordRows(record)
    values = [[packed(row[field.name], field) for field in record.fields] for row in frame.to_dict("records")]
    batch = PredictColumns(len(frame), tuple(rows.columns([rows.row(each) for each in values])))
    encoded = evaluate(model.predict_batch, lambda: input_reader(record)(batch))
    assert not encoded.failures
    return [line.decode() for line in encoded.lines().split(b"\n")]


def packed(value: Any, field: Any) -> Any:
    if value is None or value != value:
        return None
    return (
        value.encode()
        if isinstance(value, str)
        else (field.type.dtype.label.startswith("float") and float(value)) or value
    )


def texts_of(outputs: Any) -> list[str]:
    return [str(value) for value in np.asarray(outputs).tolist()]


def test_pipeline_of_named_columns_says_what_it_takes(tmp_path: Path) -> None:
    ticket = ("t", TfidfVectorizer(analyzer="char"), "ticket")
    fitted = titanic(("p", OrdinalEncoder(), ["pclass"]), ticket).fit(FRAME, SURVIVED)
    model = saved(tmp_path, fitted)
    assert str(model.input_type) == "age: float64?, sex: string?, pclass: int64{1, 2, 3}, ticket: string"
    assert answered(model, FRAME) == texts_of(fitted.predict(FRAME))


def test_columns_that_are_dropped_are_not_asked_for(tmp_path: Path) -> None:
    fitted = titanic().fit(FRAME, SURVIVED)
    model = saved(tmp_path, fitted)
    assert str(model.input_type) == "age: float64?, sex: string?"
    assert answered(model, FRAME[["age", "sex"]]) == texts_of(fitted.predict(FRAME))


def test_columns_that_are_chosen_by_a_function_or_a_search_are_found(tmp_path: Path) -> None:
    by_type = make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(), make_column_selector(dtype_exclude="number")),
    )
    searched = GridSearchCV(make_pipeline(by_type, LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2)
    fitted = searched.fit(FRAME[["age", "sex", "pclass"]], SURVIVED)
    model = saved(tmp_path, fitted)
    assert str(model.input_type) == 'age: float64?, sex: string{"female", "male"}?, pclass: float64?'
    assert answered(model, FRAME) == texts_of(fitted.predict(FRAME[["age", "sex", "pclass"]]))


def test_gradient_boosting_gets_its_categories(tmp_path: Path) -> None:
    frame = FRAME.assign(sex=FRAME["sex"].astype("category"))[["age", "sex"]]
    fitted = HistGradientBoostingClassifier(categorical_features="from_dtype", min_samples_leaf=2).fit(frame, SURVIVED)
    model = saved(tmp_path, fitted)
    assert str(model.input_type) == 'age: float64?, sex: string{"female", "male"}?'
    assert answered(model, frame) == texts_of(fitted.predict(frame))


def test_numbers_with_names_may_still_come_as_a_list(tmp_path: Path) -> None:
    frame = FRAME[["pclass", "age"]].fillna(0.0)
    for fitted in (
        LogisticRegression().fit(frame, SURVIVED),
        RandomForestClassifier(3, random_state=0).fit(frame, SURVIVED),
    ):
        model = saved(tmp_path, fitted)
        assert [field.name for field in model.input_type.fields] == ["pclass", "age"]
        assert answered(model, frame) == texts_of(fitted.predict(frame))
        listed = saved(tmp_path, fitted, input_type="float64[2]")
        assert listed.predict_batch(frame.to_numpy()).tolist() == fitted.predict(frame).tolist()


def test_columns_by_name_may_come_as_a_list_or_a_text_if_that_is_declared(tmp_path: Path) -> None:
    columns = make_column_transformer((StandardScaler(), ["age"]), ("passthrough", ["pclass"]))
    frame = FRAME[["age", "pclass"]].fillna(0.0)
    fitted = make_pipeline(columns, LinearRegression()).fit(frame, SURVIVED)
    listed = saved(tmp_path, fitted, input_type="float64[2]")
    assert np.allclose(listed.predict_batch(frame.to_numpy()), fitted.predict(frame))
    text = saved(tmp_path, fitted, input_type="string")
    assert np.allclose(text.predict_batch(['{"pclass": 3, "age": 22}']), fitted.predict(frame[:1]))
    with pytest.raises(ContainerFailed, match=r"input type float64.3. does not suit m.joblib, which takes"):
        saved(tmp_path, fitted, input_type="float64[3]")


def lengths(frame: pd.DataFrame) -> Any:
    return frame.apply(lambda column: column.astype(str).str.len())


def test_what_cannot_be_known_is_asked_for_and_settled_by_a_sample(tmp_path: Path) -> None:
    fitted = make_pipeline(
        make_column_transformer((FunctionTransformer(lengths), ["ticket"]), (SimpleImputer(), ["age"])),
        LinearRegression(),
    ).fit(FRAME, SURVIVED)
    with pytest.raises(
        ContainerFailed, match=r"types of its columns ticket: .* --input-type 'age: float64, ticket: string'"
    ):
        saved(tmp_path, fitted)
    for said in ({"sample_type": "ticket: string, more: bool"}, {"input_type": "ticket: string, age: float64?"}):
        model = saved(tmp_path, fitted, **said)
        assert np.allclose([float(text) for text in answered(model, FRAME)], fitted.predict(FRAME))


def test_columns_of_one_kind_may_lack_values_together(tmp_path: Path) -> None:
    names = [f"n{index}" for index in range(500)]
    wide = pd.DataFrame(np.arange(5000.0).reshape(10, 500) % 7, columns=names).assign(sex=["male", "female"] * 5)
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["sex"]), (StandardScaler(), names))
    fitted = make_pipeline(columns, LogisticRegression()).fit(wide, SURVIVED[:10])
    calls: list[int] = []
    original = fitted.steps[-1][1].predict
    fitted.steps[-1][1].predict = lambda rows: calls.append(1) or original(rows)

    def answer(of_type: RecordType, given: Any) -> object:
        return fitted.predict(framing(of_type)(given))

    record, warning = find_record(fitted, [*names, "sex"], None, None, answer)
    assert not warning
    assert [field.is_nullable for field in record.fields] == [False] * 500 + [True]
    # It takes longer, the wider a table is; what is left may not lack values.
    assert len(calls) <= 10


def test_what_is_declared_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the type that a version has taken so far: its later containers do not try rows."""
    fitted = titanic().fit(FRAME, SURVIVED)
    declared = 'sex: string{"female", "male"}, age: float64?'
    joblib.dump(fitted, tmp_path / "m.joblib")
    original, calls = LogisticRegression.predict, []
    monkeypatch.setattr(LogisticRegression, "predict", lambda self, rows: calls.append(1) or original(self, rows))
    model = load(ModelSource(tmp_path, "file", "m.joblib", input_type=declared))
    # Two batches show that its answers without a DataFrame are those that it gives for one.
    assert (str(model.input_type), calls) == (declared, [1] * 4)
    frame = FRAME[["sex", "age"]].dropna(subset=["sex"])
    assert answered(model, frame) == texts_of(fitted.predict(frame))


def years(frame: pd.DataFrame) -> Any:
    return frame.apply(lambda column: pd.to_datetime(column).dt.year)


def test_dates_are_asked_for_though_a_number_would_do(tmp_path: Path) -> None:
    frame = FRAME[["pclass"]].assign(
        bought=["2020-01-31", "1999-12-01", "2024-02-29"] * 10, is_alone=[True, False] * 15
    )
    columns = make_column_transformer(
        (FunctionTransformer(years), ["bought"]), ("passthrough", ["is_alone"]), (StandardScaler(), ["pclass"])
    )
    fitted = make_pipeline(columns, LinearRegression()).fit(frame, SURVIVED)
    line = "--input-type 'pclass: float64, bought: string, is_alone: float64', in which the types .* are guesses"
    asks = f"types of its columns bought, is_alone: deploy it again with --sample .* {line}"
    with pytest.raises(ContainerFailed, match=asks):
        saved(tmp_path, fitted)
    model = saved(tmp_path, fitted, input_type="bought: string, pclass: float64, is_alone: bool")
    assert np.allclose([float(text) for text in answered(model, frame)], fitted.predict(frame))


def test_names_with_any_character_are_shown_in_a_line(tmp_path: Path) -> None:
    names = ["it's", "a\nb", 'q"x']
    frame = pd.DataFrame(np.arange(9.0).reshape(3, 3), columns=names)
    columns = make_column_transformer(("passthrough", names))
    model = saved(tmp_path, make_pipeline(columns, LinearRegression()).fit(frame, SURVIVED[:3]))
    assert model.warning.startswith('the model does not say the types of its columns it\'s, "a\\nb", q"x, which')
    # A shell reads the guessed type from the line.
    line = shlex.split(model.warning[model.warning.index("--input-type") :])
    assert line == ["--input-type", str(model.input_type)]


def test_line_to_type_of_a_wide_guess_is_left_out(tmp_path: Path) -> None:
    wide = pd.DataFrame(np.arange(3000.0).reshape(3, 1000) % 7, columns=[f"n{index}" for index in range(1000)])
    columns = make_column_transformer(("passthrough", wide.columns.tolist()))
    model = saved(tmp_path, make_pipeline(columns, LinearRegression()).fit(wide, SURVIVED[:3]))
    assert "its columns n0, n1, " in model.warning and len(model.warning) < 1000
    assert model.warning.endswith("or with the right types of all columns in --input-type")


def number_of_letters(frame: pd.DataFrame) -> Any:
    return frame["ticket"].str.len().to_frame()


def test_type_that_only_works_as_a_text_is_one(tmp_path: Path) -> None:
    columns = make_column_transformer((FunctionTransformer(number_of_letters), ["ticket"]))
    fitted = make_pipeline(columns, LinearRegression()).fit(FRAME, SURVIVED)
    model = saved(tmp_path, fitted)
    assert str(model.input_type) == "ticket: string"
    assert np.allclose([float(text) for text in answered(model, FRAME)], fitted.predict(FRAME))


@pytest.mark.parametrize("estimator", [LogisticRegression(), RandomForestClassifier(3, random_state=0)])
def test_several_outputs_of_a_classifier_of_named_columns(tmp_path: Path, estimator: Any) -> None:
    """Also of one that answers its label alone from an array."""
    frame = FRAME[["age", "pclass"]].fillna(0.0)
    model = estimator.fit(frame, np.where(SURVIVED, "yes", "no"))
    labels, probabilities = model.predict(frame), model.predict_proba(frame)
    both = answered(saved(tmp_path, model, output="label,probabilities"), frame)
    expected = [{"label": label, "probabilities": row} for label, row in zip(labels, probabilities.tolist())]
    assert [json.loads(each) for each in both] == expected
    by_class = answered(saved(tmp_path, model, output="class_probabilities"), frame)
    assert [json.loads(each) for each in by_class] == [dict(zip(("no", "yes"), row)) for row in probabilities.tolist()]
    assert [json.loads(each) for each in answered(saved(tmp_path, model, output="label"), frame)] == labels.tolist()
