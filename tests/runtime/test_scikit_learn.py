import numpy as np
import pytest
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from clipper.runtime.scikit_learn import quick_predict_of

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
        RandomForestClassifier(5, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        Own(max_iter=1000),
    ],
)
def test_any_other_estimator_is_left_alone(estimator: ClassifierMixin) -> None:
    assert quick_predict_of(estimator.fit(*load_iris(return_X_y=True))) is None


def test_what_is_not_fitted_or_is_sparse_is_left_alone() -> None:
    assert quick_predict_of(LogisticRegression()) is None
    assert quick_predict_of(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)).sparsify()) is None


def test_a_function_is_left_alone() -> None:
    assert quick_predict_of(len) is None
