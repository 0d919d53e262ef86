"""Facts about scikit-learn's estimators. This module does not import scikit-learn: the model's own pickle has."""

import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from clipper.values.types import DType, InputType


def version() -> str | None:
    """Return the version of scikit-learn if the model imported it."""
    module = sys.modules.get("sklearn")
    return None if module is None else str(module.__version__)


def input_type_of(estimator: Any) -> InputType | None:
    """Return what a fitted estimator takes, or None if it does not say."""
    if _takes_text(_first_step(estimator)):
        return InputType(DType.STRING)
    features = getattr(estimator, "n_features_in_", None)
    if isinstance(features, int) and features > 0:
        return InputType(DType.FLOAT64, (features,))
    return None


def takes_lists(estimator: Any) -> bool:
    """Whether an estimator that was fitted on named columns answers a list of numbers, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.predict(np.ones((1, estimator.n_features_in_)))
    except Exception:  # noqa: BLE001  whatever it is, the list is not one that the estimator takes
        return False
    return True


def _first_step(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list) and steps:
        return _first_step(steps[0][1])
    # GridSearchCV and the like hold the pipeline that they chose.
    best = getattr(estimator, "best_estimator_", None)
    return estimator if best is None else _first_step(best)


def _takes_text(step: Any) -> bool:
    # Count, Tfidf and Hashing vectorizers, and classes derived from them, have this attribute.
    return callable(getattr(step, "build_analyzer", None))


def saved_with(caught: Iterable[warnings.WarningMessage]) -> str | None:
    """Return the version that a file was saved with, if loading it warned that it is another."""
    for warning in caught:
        saved = getattr(warning.message, "original_sklearn_version", None)
        if saved is not None:
            return str(saved)
    return None


def quiet() -> None:
    """Drop the warning that an array has no column names: rows come as arrays whatever a model was fitted on."""
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
