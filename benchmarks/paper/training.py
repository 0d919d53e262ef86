"""The models: each trained once, and kept under a name that tells data, recipe and library version."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from benchmarks.paper.data import Labelled
from scripts.kept import digest, folder
from scripts.real_models import exported

# Of pictures: 20,000 to train on, 784 pixels from 0 to 255.
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "svm": lambda: make_pipeline(PCA(60, random_state=0), SVC(C=10)),
    "net": lambda: make_pipeline(MaxAbsScaler(), MLPClassifier((256,), max_iter=16, random_state=0)),
    "deep_net": lambda: make_pipeline(MaxAbsScaler(), MLPClassifier((200, 100), max_iter=16, random_state=1)),
    "forest": lambda: ExtraTreesClassifier(60, max_features=40, random_state=0),
    "neighbours": lambda: make_pipeline(PCA(50, random_state=0), KNeighborsClassifier(5, weights="distance")),
    "logistic": lambda: make_pipeline(MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=60, tol=1e-2)),
    "discriminant": lambda: make_pipeline(PCA(100, random_state=0), LinearDiscriminantAnalysis()),
    "tree": lambda: make_pipeline(PCA(50, random_state=0), DecisionTreeClassifier(max_depth=10, random_state=0)),
    "bayes": lambda: make_pipeline(PCA(50, random_state=0), GaussianNB()),
}

# Of the same pictures, without preparation: where it is counted what a model takes, and not how right it is.
PLAIN: dict[str, Callable[[], Any]] = {
    "linear-svm": lambda: LinearSVC(dual=False, max_iter=10),
    "logistic-regression": lambda: LogisticRegression(max_iter=60),
    "random-forest": lambda: RandomForestClassifier(100, random_state=0),
    "kernel-svm": SVC,
}
# How many of them: a kernel SVM's time goes with its support vectors, and these with this.
PLAIN_FITTED_TO = 5_000


def trained(estimator: Any, data: Labelled) -> Path:
    """Return the file of ``estimator``, fitted to ``data``; it is fitted if that was not done before."""
    key = digest(repr(estimator), sklearn.__version__, data.inputs.tobytes(), data.labels.tobytes())
    path = folder() / "models" / f"{key}.joblib"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        # Written aside and renamed, so that a run that is stopped leaves no half of a model.
        aside = path.with_suffix(f".{os.getpid()}")
        with warnings.catch_warnings():
            # Nets and regressions end after a fixed number of rounds, to save time.
            warnings.simplefilter("ignore", ConvergenceWarning)
            joblib.dump(estimator.fit(data.inputs, data.labels), aside)
        aside.replace(path)
    return path


def spark_linear(data: Labelled) -> Path:
    """Return the folder of a logistic regression of Spark's, fitted to ``data`` in an environment of its own."""
    text = b"\n".join(libsvm(label, row) for label, row in zip(data.labels.tolist(), data.inputs.tolist()))
    rows = folder() / "models" / f"{digest(text)}.libsvm"
    rows.parent.mkdir(exist_ok=True)
    rows.write_bytes(text)
    return exported("spark_linear", "spark", rows) / "model"


def exported_pictures(name: str, framework: str, data: Labelled) -> Path:
    """Return the folder of a model that ``exports/NAME.py`` has fitted to ``data`` in a framework's environment."""
    return exported(name, framework, pictures_file(data))


def pictures_file(data: Labelled) -> Path:
    """Return the file of pictures and labels that the programs of ``exports`` read."""
    path = folder() / "models" / f"{digest(data.inputs.tobytes(), data.labels.tobytes())}.npz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(aside, inputs=data.inputs.astype(np.uint8), labels=data.labels)
        aside.replace(path)
    return path


def libsvm(label: int, row: list[float]) -> bytes:
    """A row in LIBSVM's form: the places that are not 0, from 1 on."""
    return b"%d " % label + b" ".join(b"%d:%g" % (place, value) for place, value in enumerate(row, 1) if value)


SMALL_FORESTS = 16


def small_forests(data: Labelled, count: int = SMALL_FORESTS) -> list[Path]:
    """At most 20 forests of 10 trees, 16 deep, each fitted to a twentieth of the data that no other has.

    So each is weak, and they err on different inputs, as the paper's of figure 9c.
    """
    rows = np.random.default_rng(0).permutation(len(data))
    share = len(data) // 20
    return [
        trained(
            RandomForestClassifier(10, max_depth=16, random_state=number),
            data[rows[number * share : (number + 1) * share]],
        )
        for number in range(count)
    ]
