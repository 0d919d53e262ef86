"""``predict`` of scikit-learn's estimators without its checks of each batch, with the same answers to the bit.

Clipper has checked the rows, so scikit-learn's checks find nothing, and they cost more than a small batch. Like
``scikit_learn.py``, this module does not import scikit-learn: the model's own pickle has.
"""

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipper.model.frameworks.scikit_learn import version

Predict = Callable[[Any], Any]

# Methods that ``predict`` calls. If an estimator overrides one, its own ``predict`` is used.
_LINEAR = ("predict", "decision_function")
_FOREST = ("predict", "_validate_X_predict")

# Before 1.4, leaves held counts of classes, which each tree's predict_proba turned into fractions.
_LEAST_VERSION = (1, 4)
_TRIED_ROWS = 32


def quick_predict_of(estimator: Any) -> Predict | None:
    """Return ``predict`` of a linear classifier or a forest without its checks of each batch.

    Returns None for any other estimator, and if it is not certain that the answers are those of ``predict``.
    """
    quick = _of_linear_classifier(estimator) or _of_forest(estimator)
    return quick if quick is not None and _agrees(quick, estimator) else None


def _agrees(quick: Predict, estimator: Any) -> bool:
    """Whether both functions give the same answers to some rows: a later scikit-learn may work differently."""
    rows = np.random.default_rng(0).standard_normal((_TRIED_ROWS, estimator.n_features_in_))
    try:
        return bool(np.array_equal(quick(rows), estimator.predict(rows)))
    except Exception:  # noqa: BLE001  whatever it is, predict itself raises it again when it is asked
        return False


def _of_linear_classifier(estimator: Any) -> Predict | None:
    """Return the function for a linear classifier. 16 rows of 784 take 9 µs; the checks would take 65 µs more."""
    if not _keeps(estimator, "sklearn.linear_model._base", "LinearClassifierMixin", _LINEAR):
        return None
    weights, intercept, classes = (getattr(estimator, name, None) for name in ("coef_", "intercept_", "classes_"))
    if type(weights) is not np.ndarray or classes is None:  # the weights are sparse, or the estimator is not fitted
        return None
    weights = weights.T
    if weights.shape[1] == 1:
        return lambda inputs: classes[((inputs @ weights + intercept).ravel() > 0).astype(int)]
    return lambda inputs: classes[(inputs @ weights + intercept).argmax(axis=1)]


def _of_forest(estimator: Any) -> Predict | None:
    """Return the function for a forest. Its checks take some 40 µs for each tree, which takes only 3 µs for a row."""
    classifies = _keeps(estimator, "sklearn.ensemble._forest", "ForestClassifier", (*_FOREST, "predict_proba"))
    if not classifies and not _keeps(estimator, "sklearn.ensemble._forest", "ForestRegressor", _FOREST):
        return None
    # A model with n_jobs is meant to use scikit-learn's threads.
    if not _is_known_version() or getattr(estimator, "n_jobs", None) not in (None, 1):
        return None
    forest = _forest_of(estimator, "Classifier" if classifies else "Regressor")
    if forest is None:
        return None
    return forest.labels if classifies else forest.values


def _keeps(estimator: Any, module: str, base_name: str, methods: Sequence[str]) -> bool:
    """Whether these methods of an estimator are those of scikit-learn's base class."""
    base = getattr(sys.modules.get(module), base_name, None)
    for method in methods:
        own = getattr(base, method, None)
        if own is None or getattr(type(estimator), method, None) is not own:
            return False
    return not any(method in vars(estimator) for method in methods)


def _is_known_version() -> bool:
    found = re.match(r"(\d+)\.(\d+)\.", version() or "")
    return found is not None and (int(found[1]), int(found[2])) >= _LEAST_VERSION


@dataclass(frozen=True, slots=True)
class _Forest:
    """A fitted forest with one output.

    Attributes:
        trees: a function for each tree, from rows as float32 (n, features) to its leaves' values (n, width).
        width: the number of classes; 1 for a regressor.
    """

    estimator: Any
    trees: list[Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]]
    features: int
    width: int

    def labels(self, inputs: Any) -> Any:
        rows = _as_float32(inputs, self.features)
        if rows is None:
            return self.estimator.predict(inputs)
        return self.estimator.classes_.take(self._mean(rows).argmax(axis=1), axis=0)

    def values(self, inputs: Any) -> Any:
        rows = _as_float32(inputs, self.features)
        return self.estimator.predict(inputs) if rows is None else self._mean(rows).ravel()

    def _mean(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        # In scikit-learn's order, starting from zeros, since sums in another order differ in the last bits.
        mean = np.zeros((len(rows), self.width))
        for tree in self.trees:
            mean += tree(rows)
        mean /= len(self.trees)
        return mean


def _forest_of(estimator: Any, kind: str) -> _Forest | None:
    """Return a fitted forest of one output, if each of its trees is scikit-learn's own and suits it."""
    members = getattr(estimator, "estimators_", None)
    if not members:
        return None
    features, width = estimator.n_features_in_, estimator.n_classes_ if kind == "Classifier" else 1
    module = sys.modules.get("sklearn.tree._classes")
    kinds = [getattr(module, f"{name}{kind}", None) for name in ("DecisionTree", "ExtraTree")]
    if any(type(member) not in kinds or _shape(member) != (features, 1, width) for member in members):
        return None
    return _Forest(estimator, [member.tree_.predict for member in members], features, int(width))


def _shape(member: Any) -> tuple[Any, ...]:
    # A tree reads its features from a row of any length, so the number of features must be known to check it.
    tree = getattr(member, "tree_", None)
    return tuple(getattr(tree, name, None) for name in ("n_features", "n_outputs", "max_n_classes"))


def _as_float32(inputs: Any, features: int) -> npt.NDArray[np.float32] | None:
    """Return rows as trees take them; None if scikit-learn may refuse them and so has to check them."""
    if type(inputs) is not np.ndarray or inputs.dtype.kind not in "biuf":
        return None
    if inputs.shape[1:] != (features,) or not inputs.size:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        rows = inputs.astype(np.float32, copy=False)
        # A sum is finite only if all numbers are. If only the sum is too large, scikit-learn answers.
        return rows if math.isfinite(rows.sum()) else None
