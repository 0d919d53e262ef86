from typing import Any

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
)
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from clipper.model.frameworks.quick_predict import quick_predict_of
from tests.example_counts import share_of

DIGITS, LABELS = load_digits(return_X_y=True)


@pytest.mark.parametrize(
    "estimator",
    [LinearSVC(), LogisticRegression(max_iter=5000), SGDClassifier(random_state=0), Perceptron(random_state=0)],
)
@pytest.mark.parametrize("labels", [LABELS, LABELS % 2, np.where(LABELS % 3, "some", "none")])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_a_linear_classifier_answers_as_its_own_predict(
    estimator: ClassifierMixin, labels: np.ndarray, dtype: str
) -> None:
    estimator.fit(DIGITS[:300], labels[:300])
    quick = quick_predict_of(estimator)
    assert quick is not None
    for rows in (1, 2, 17, 500):
        inputs = DIGITS[:rows].astype(dtype)
        assert np.array_equal(quick(inputs), estimator.predict(inputs))


class Own(LogisticRegression):
    """Decides by other scores."""

    def decision_function(self, X: np.ndarray) -> np.ndarray:  # noqa: N803  scikit-learn's name
        return -super().decision_function(X)


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(random_state=0),
        GradientBoostingClassifier(n_estimators=2),
        RandomTreesEmbedding(2),
        make_pipeline(StandardScaler(), LogisticRegression()),
        Own(max_iter=1000),
    ],
)
def test_any_other_estimator_is_left_alone(estimator: BaseEstimator) -> None:
    assert quick_predict_of(estimator.fit(*load_iris(return_X_y=True))) is None


def test_what_is_not_fitted_or_is_sparse_is_left_alone() -> None:
    assert quick_predict_of(LogisticRegression()) is None
    assert quick_predict_of(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)).sparsify()) is None


def test_a_function_is_left_alone() -> None:
    assert quick_predict_of(len) is None


IRIS, SPECIES = load_iris(return_X_y=True)
PATIENTS, PROGRESSION = load_diabetes(return_X_y=True)
CLASSIFIERS = (RandomForestClassifier, ExtraTreesClassifier)
REGRESSORS = (RandomForestRegressor, ExtraTreesRegressor)


def assert_same(estimator: Any, inputs: np.ndarray) -> None:
    quick = quick_predict_of(estimator)
    assert quick is not None
    before = inputs.copy()
    answered, expected = quick(inputs), estimator.predict(inputs)
    assert answered.dtype == expected.dtype
    assert answered.shape == expected.shape
    assert np.array_equal(answered, expected)
    assert np.array_equal(inputs, before, equal_nan=True)


def never(_self: Any, _inputs: np.ndarray) -> np.ndarray:
    raise AssertionError("scikit-learn's own predict was called")


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    "labels",
    [LABELS, LABELS % 2, np.where(LABELS % 3, "some", "none"), LABELS > 4, LABELS * 1.0, LABELS * 0 + 7],
    ids=["ten", "two", "text", "bool", "float", "one"],
)
@pytest.mark.parametrize("rows", [1, 3, 128])
def test_a_forest_of_classifiers_answers_as_its_own_predict(kind: Any, labels: np.ndarray, rows: int) -> None:
    forest = kind(10, random_state=rows).fit(DIGITS[:300], labels[:300])
    assert_same(forest, DIGITS[300 : 300 + rows])


@pytest.mark.parametrize("kind", REGRESSORS)
@pytest.mark.parametrize("rows", [1, 3, 128])
@pytest.mark.parametrize("criterion", ["squared_error", "absolute_error", "poisson"])
def test_a_forest_of_regressors_answers_as_its_own_predict(kind: Any, rows: int, criterion: str) -> None:
    forest = kind(7, random_state=rows, criterion=criterion).fit(PATIENTS[:200], PROGRESSION[:200])
    assert_same(forest, PATIENTS[200 : 200 + rows])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ">f4", "int64", "uint8", "bool"])
@pytest.mark.parametrize("layout", ["C", "F", "every second", "backwards"])
@pytest.mark.parametrize(("kind", "targets"), [(RandomForestClassifier, LABELS), (ExtraTreesRegressor, LABELS / 3)])
def test_a_forest_takes_numbers_of_any_kind_and_layout(kind: Any, targets: np.ndarray, dtype: str, layout: str) -> None:
    forest = kind(5, random_state=0).fit(DIGITS[:200], targets[:200])
    inputs = DIGITS[200:240].astype(dtype)
    inputs = {"every second": inputs[::2], "backwards": inputs[::-1], "F": np.asfortranarray(inputs)}.get(
        layout, inputs
    )
    assert_same(forest, inputs)


def test_a_forest_does_not_ask_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(IRIS, SPECIES)
    quick = quick_predict_of(forest)
    assert quick is not None
    monkeypatch.setattr(RandomForestClassifier, "predict", never)
    with pytest.raises(AssertionError, match="own predict"):
        forest.predict(IRIS)
    assert len(quick(IRIS)) == len(IRIS)


# Few values, few trees and shallow ones: numbers that are a threshold, and votes that are equal.
SETTINGS = {
    "n_estimators": st.integers(1, 8),
    "max_depth": st.integers(1, 4),
    "max_features": st.sampled_from(["sqrt", "log2", None, 0.5]),
    "bootstrap": st.booleans(),
    "ccp_alpha": st.sampled_from([0.0, 0.02]),
    "monotonic_cst": st.sampled_from([None, [1, -1, 0, 0]]),
    "random_state": st.integers(0, 10_000),
}


def table(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, and the weight and the label of each: a label is 0 or 1 since monotonic constraints are for these."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, 4, (60, 4)) / 3
    return rows, random.exponential(1.0, 60), (rows[:, 0] + random.normal(0, 0.5, 60) > 0.5).astype(int)


@settings(max_examples=share_of(60))
@given(st.sampled_from(CLASSIFIERS), st.fixed_dictionaries(SETTINGS), st.sampled_from([None, "balanced", {0: 3.7}]))
def test_votes_that_are_equal_are_counted_alike(kind: Any, chosen: dict[str, Any], class_weight: Any) -> None:
    rows, weights, labels = table(chosen["random_state"])
    assert_same(kind(**chosen, class_weight=class_weight).fit(rows, labels, sample_weight=weights), rows)


@settings(max_examples=share_of(60))
@given(st.sampled_from(REGRESSORS), st.fixed_dictionaries(SETTINGS))
def test_means_are_equal_to_the_last_bit(kind: Any, chosen: dict[str, Any]) -> None:
    rows, weights, _ = table(chosen["random_state"])
    assert_same(kind(**chosen).fit(rows, weights - 0.5, sample_weight=weights), rows)


def test_a_forest_that_has_grown_answers_with_all_its_trees() -> None:
    forest = RandomForestClassifier(3, warm_start=True, random_state=0).fit(DIGITS[:300], LABELS[:300])
    forest.set_params(n_estimators=9).fit(DIGITS[:300], LABELS[:300])
    assert_same(forest, DIGITS[300:400])


@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
def test_missing_values_are_answered_as_scikit_learn_does(kind: Any) -> None:
    holes = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.2, np.nan, IRIS)
    for fitted_to in (holes, IRIS):
        forest = kind(5, random_state=0).fit(fitted_to, SPECIES)
        assert_same(forest, holes)
        assert_same(forest, IRIS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
@pytest.mark.parametrize(
    "inputs",
    [
        np.array([[1.0, 2.0, 3.0, 1e300]]),
        np.array([[1.0, 2.0, np.inf, -np.inf]]),
        IRIS[:, :3],
        np.hstack([IRIS, IRIS]),
        IRIS[0],
        IRIS[:0],
        IRIS.reshape(-1, 4, 1),
        np.array(1.0),
        np.array([["a", "b", "c", "d"]]),
        IRIS.astype(complex),
        [[1.0, 2.0, 3.0]],
        [IRIS[0], IRIS[1, :2]],
        "text",
    ],
)
def test_what_a_forest_refuses_is_refused_in_its_own_words(kind: Any, inputs: Any) -> None:
    forest = kind(2, random_state=0).fit(IRIS, SPECIES)
    quick = quick_predict_of(forest)
    assert quick is not None
    with pytest.raises(ValueError) as expected:
        forest.predict(inputs)
    with pytest.raises(ValueError) as answered:
        quick(inputs)
    assert str(answered.value) == str(expected.value)


@pytest.mark.parametrize("inputs", [IRIS.tolist(), IRIS.astype(object), np.full((2, 4), 3e38), np.ma.array(IRIS)])
def test_what_only_scikit_learn_can_read_is_given_to_it(inputs: Any) -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(IRIS, SPECIES)
    quick = quick_predict_of(forest)
    assert quick is not None
    assert np.array_equal(quick(inputs), forest.predict(inputs))


class OwnVotes(RandomForestClassifier):
    """Counts votes its own way."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:  # noqa: N803  scikit-learn's name
        return 1 - super().predict_proba(X)


class OwnAnswers(RandomForestRegressor):
    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        return -super().predict(X)


class OwnChecks(ExtraTreesClassifier):
    def _validate_X_predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N802, N803
        return super()._validate_X_predict(X) * 2


class OwnName(RandomForestClassifier):
    """Is a forest in all but its name."""


def with_own(name: str) -> RandomForestClassifier:
    forest = RandomForestClassifier(2)
    setattr(forest, name, lambda inputs: inputs)
    return forest


@pytest.mark.parametrize(
    "forest",
    [
        OwnVotes(2),
        OwnAnswers(2),
        OwnChecks(2),
        with_own("predict"),
        with_own("predict_proba"),
        RandomForestClassifier(2, n_jobs=2),
        RandomForestRegressor(2, n_jobs=-1),
    ],
)
def test_a_forest_that_decides_otherwise_or_on_threads_is_left_alone(forest: Any) -> None:
    assert quick_predict_of(forest.fit(IRIS, SPECIES)) is None


@pytest.mark.parametrize("kind", [*CLASSIFIERS, *REGRESSORS])
def test_a_forest_without_trees_or_of_several_outputs_is_left_alone(kind: Any) -> None:
    assert quick_predict_of(kind()) is None
    assert quick_predict_of(kind(2).fit(IRIS, np.column_stack([SPECIES, SPECIES % 2]))) is None


class OwnTree(DecisionTreeClassifier):
    """A tree that may do anything."""


@pytest.mark.parametrize(
    "tree",
    [
        OwnTree().fit(IRIS, SPECIES),
        DecisionTreeClassifier(),
        DecisionTreeClassifier().fit(np.hstack([IRIS, IRIS]), SPECIES),
        DecisionTreeClassifier().fit(IRIS, SPECIES % 2),
    ],
    ids=["own", "not fitted", "of more features", "of fewer classes"],
)
def test_a_forest_with_a_tree_of_another_kind_is_left_alone(tree: DecisionTreeClassifier) -> None:
    forest = RandomForestClassifier(3).fit(IRIS, SPECIES)
    forest.estimators_[1] = tree
    assert quick_predict_of(forest) is None


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_a_forest_of_another_name_is_quick(n_jobs: int | None) -> None:
    assert_same(OwnName(5, n_jobs=n_jobs, random_state=0).fit(IRIS, SPECIES), IRIS)


@pytest.mark.parametrize(
    ("version", "is_quick"), [("1.3.2", False), ("0.24.2", False), ("unknown", False), ("1.4.0", True), ("2.0.1", True)]
)
def test_a_forest_whose_trees_count_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, version: str, is_quick: bool
) -> None:
    forest = RandomForestClassifier(2).fit(IRIS, SPECIES)
    monkeypatch.setattr(sklearn, "__version__", version)
    assert (quick_predict_of(forest) is not None) == is_quick


@pytest.mark.parametrize("estimator", [RandomForestClassifier(5, random_state=0), RandomForestRegressor(5)])
def test_a_release_that_goes_about_it_in_another_way_answers_itself(
    estimator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator.fit(DIGITS[:300], LABELS[:300])
    assert quick_predict_of(estimator) is not None
    base: Any = type(estimator).__mro__[1]
    own = base.predict
    monkeypatch.setattr(base, "predict", lambda forest, rows: own(forest, rows) + 1)
    assert quick_predict_of(estimator) is None


def test_a_model_whose_predict_raises_is_left_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = LogisticRegression(max_iter=5000).fit(DIGITS[:300], LABELS[:300])
    base = next(each for each in type(estimator).__mro__ if "predict" in vars(each))

    def broken(forest: Any, rows: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(base, "predict", broken)
    assert quick_predict_of(estimator) is None
