from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from clipper.model.frameworks.frames import framing
from clipper.model.frameworks.quick_columns import agrees, quick_pipeline
from clipper.model.frameworks.table import column_of
from clipper.values.records import RecordType

CHANCE = np.random.default_rng(1)
ROWS = 200
FRAME = pd.DataFrame(
    {
        "age": np.where(CHANCE.random(ROWS) < 0.1, np.nan, CHANCE.normal(40, 10, ROWS)),
        "fare": CHANCE.exponential(10, ROWS),
        "class": CHANCE.integers(1, 4, ROWS),
        "sex": CHANCE.choice(["male", "female"], ROWS),
        "port": CHANCE.choice(["S", "C", "Q", None], ROWS),
    }
)
LABELS = np.where(CHANCE.random(ROWS) < 0.5, "no", "yes")
RECORD = RecordType.parse('age: float64?, fare: float64, class: int64, sex: string{"female","male"}, port: string?')
NUMBERS, TEXTS = ["age", "fare"], ["sex", "port"]
FILLED = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
LENIENT = OneHotEncoder(handle_unknown="ignore")
CODES = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)

QUICK: dict[str, Any] = {
    "sparse": make_pipeline(
        make_column_transformer((FILLED, NUMBERS), (LENIENT, TEXTS)), LogisticRegression(max_iter=5000)
    ),
    "dense": make_pipeline(
        make_column_transformer((FILLED, NUMBERS), (OneHotEncoder(sparse_output=False), TEXTS)),
        LogisticRegression(max_iter=5000),
    ),
    "codes": make_pipeline(make_column_transformer((CODES, TEXTS), remainder="passthrough"), DecisionTreeClassifier()),
    "codes that are closed": make_pipeline(
        make_column_transformer((OrdinalEncoder(), ["port", "sex"]), (RobustScaler(), ["fare"])),
        HistGradientBoostingClassifier(max_iter=3),
    ),
    "filled texts": make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), TEXTS),
            (SimpleImputer(), ["age"]),
            (FunctionTransformer(), ["fare"]),
        ),
        LogisticRegression(max_iter=5000),
    ),
    "categories of numbers": make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["class", "sex"]), (FILLED, NUMBERS)),
        StandardScaler(with_mean=False),
        LogisticRegression(max_iter=5000),
    ),
    "searched": GridSearchCV(
        make_pipeline(make_column_transformer((FILLED, NUMBERS), (LENIENT, TEXTS)), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": [0.1, 1.0]},
        cv=2,
    ),
}
SLOW: dict[str, Any] = {
    "a step without a quick form": make_pipeline(
        make_column_transformer((KBinsDiscretizer(3), ["fare"]), (LENIENT, TEXTS)), LogisticRegression(max_iter=5000)
    ),
    "a function": make_pipeline(
        make_column_transformer((FunctionTransformer(np.log1p), ["fare"]), (LENIENT, TEXTS)),
        LogisticRegression(max_iter=5000),
    ),
    "rare categories together": make_pipeline(
        make_column_transformer((OneHotEncoder(min_frequency=80), TEXTS), (FILLED, NUMBERS)),
        LogisticRegression(max_iter=5000),
    ),
    "a category left out": make_pipeline(
        make_column_transformer((OneHotEncoder(drop="first"), TEXTS), (FILLED, NUMBERS)),
        LogisticRegression(max_iter=5000),
    ),
    "marks of missing values": make_pipeline(
        make_column_transformer((SimpleImputer(add_indicator=True), NUMBERS), (LENIENT, TEXTS)),
        LogisticRegression(max_iter=5000),
    ),
    "weights": make_pipeline(
        ColumnTransformer([("n", FILLED, NUMBERS), ("t", LENIENT, TEXTS)], transformer_weights={"n": 2.0}),
        LogisticRegression(max_iter=5000),
    ),
    "no columns": make_pipeline(SimpleImputer(), LogisticRegression(max_iter=5000)),
}


def columns_of(frame: pd.DataFrame) -> dict[str, Any]:
    rows = frame.astype(object).where(frame.notna(), None)
    return {field.name: column_of(field, rows[field.name].tolist()) for field in RECORD.fields}


@pytest.mark.parametrize("name", QUICK)
def test_a_pipeline_of_columns_answers_as_its_own_predict(name: str) -> None:
    estimator = QUICK[name].fit(FRAME, LABELS)
    pipeline = quick_pipeline(estimator, RECORD)
    assert pipeline is not None
    frame = framing(RECORD)
    assert agrees(pipeline.predict, lambda columns: estimator.predict(frame(columns)), pipeline, RECORD)
    for rows in (1, 2, 17, ROWS):
        asked = FRAME.iloc[-rows:]
        assert np.array_equal(pipeline.predict(columns_of(asked)), estimator.predict(asked))
        assert np.array_equal(pipeline.predict_proba(columns_of(asked)), estimator.predict_proba(asked))


@pytest.mark.parametrize("name", SLOW)
def test_any_other_pipeline_is_left_alone(name: str) -> None:
    numbers = FRAME[["age", "fare"]] if name == "no columns" else FRAME
    assert quick_pipeline(SLOW[name].fit(numbers, LABELS), RECORD) is None


class Louder(StandardScaler):
    def transform(self, X: Any, copy: bool | None = None) -> Any:  # noqa: N803  scikit-learn's name
        return 2 * super().transform(X, copy)


def test_a_transformer_of_ones_own_is_left_alone() -> None:
    estimator = make_pipeline(
        make_column_transformer((Louder(), ["fare"]), (LENIENT, TEXTS)), LogisticRegression(max_iter=5000)
    )
    assert quick_pipeline(estimator.fit(FRAME, LABELS), RECORD) is None


def test_a_quick_pipeline_that_answers_otherwise_does_not_agree() -> None:
    estimator = QUICK["sparse"].fit(FRAME, LABELS)
    other = make_pipeline(
        make_column_transformer((FILLED, NUMBERS), (LENIENT, TEXTS)), LogisticRegression(max_iter=5000)
    )
    pipeline, frame = quick_pipeline(estimator, RECORD), framing(RECORD)
    assert pipeline is not None
    other.fit(FRAME, LABELS[::-1])
    assert not agrees(pipeline.predict_proba, lambda columns: other.predict_proba(frame(columns)), pipeline, RECORD)
    assert not agrees(pipeline.predict, lambda _: other.predict(FRAME[NUMBERS]), pipeline, RECORD)


def test_a_value_that_no_encoder_knows_is_an_error_as_in_scikit_learn() -> None:
    estimator = Pipeline([("c", make_column_transformer((OneHotEncoder(), TEXTS), (FILLED, NUMBERS))), ("m", None)])
    estimator.steps[1] = ("m", LinearRegression())
    pipeline = quick_pipeline(estimator.fit(FRAME, LABELS == "yes"), RECORD)
    assert pipeline is not None
    with pytest.raises(KeyError):
        pipeline.predict(columns_of(FRAME.iloc[:3].assign(port="Hamburg")))
