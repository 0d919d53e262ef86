"""Facts about scikit-learn's estimators. This module does not import scikit-learn: the model's own pickle has."""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from clipper.model.frameworks.framework import LABEL, LABELS, PROBABILITIES, classifier_answers, classifier_type
from clipper.model.frameworks.table import common_type
from clipper.values.records import ValueType
from clipper.values.types import DType, InputType


def version() -> str | None:
    """Return the version of scikit-learn if the model imported it."""
    module = sys.modules.get("sklearn")
    return None if module is None else str(module.__version__)


def input_type_of(estimator: Any) -> InputType | None:
    """Return the input type of a fitted estimator; None if it does not say it."""
    # Count, Tfidf and Hashing vectorizers, and classes derived from them, have this attribute.
    if callable(getattr(_first_step(estimator), "build_analyzer", None)):
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


def answers_of(estimator: Any, predict: Callable[[Any], Any] | None) -> dict[str, Callable[[Any], Any]]:
    """Return an estimator's possible outputs, and the functions that answer them. ``predict`` returns labels."""
    probabilities = getattr(estimator, "predict_proba", None)
    if not callable(probabilities):
        return {} if predict is None else dict.fromkeys((LABEL, LABELS), predict)
    if predict is None:
        return {PROBABILITIES: probabilities}
    if isinstance(getattr(estimator, "classes_", None), list):
        return classifier_answers(predict, lambda rows: _of_targets(probabilities(rows)), None)
    return classifier_answers(predict, probabilities, _classes(estimator))


def output_type_of(estimator: Any, names: Sequence[str]) -> ValueType | None:
    """Return the type of these outputs of a classifier; None if it does not have its classes."""
    classes = _classes(estimator)
    label = common_type(classes or ())
    if classes is None or label is None:
        return None
    return classifier_type(names, classes, label, DType.FLOAT64)


def _classes(estimator: Any) -> list[Any] | None:
    """Return the classes of a classifier of one target, in the order of its probabilities; None if it has none."""
    classes = getattr(estimator, "classes_", None)
    return classes.tolist() if isinstance(classes, np.ndarray) and classes.ndim == 1 else None


def _of_targets(probabilities: Iterable[Any]) -> dict[str, Any]:
    """Return probabilities of several targets by names with numbers."""
    return {f"{PROBABILITIES}_{number}": each for number, each in enumerate(probabilities)}


def saved_with(caught: Iterable[warnings.WarningMessage]) -> str | None:
    """Return the version that a file was saved with, if loading it warned that this is another version."""
    for warning in caught:
        saved = getattr(warning.message, "original_sklearn_version", None)
        if saved is not None:
            return str(saved)
    return None


def quiet() -> None:
    """Drop the warning that an array has no column names: rows come as arrays whatever the model was fitted on."""
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
