"""Decides which containers can be forked from one process, and what that process imports for them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clipper.settings.version import VersionSpec
from clipper.values.types import Framework

# The modules to import, by a model's requirement. Importing a module of a library imports most of the library.
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "joblib": ("joblib",),
    "lightgbm": ("lightgbm",),
    "pandas": ("pandas",),
    "scikit-learn": (
        "sklearn.cluster",
        "sklearn.compose",
        "sklearn.decomposition",
        "sklearn.ensemble",
        "sklearn.feature_extraction.text",
        "sklearn.linear_model",
        "sklearn.naive_bayes",
        "sklearn.neighbors",
        "sklearn.neural_network",
        "sklearn.pipeline",
        "sklearn.preprocessing",
        "sklearn.svm",
        "sklearn.tree",
    ),
    "scipy": ("scipy.sparse", "scipy.special"),
    "xgboost": ("xgboost",),
    "xgboost-cpu": ("xgboost",),
}
# The frameworks whose libraries may be imported before a fork. Of the others, TensorFlow and Spark start threads, and
# OpenCV may, depending on its build.
_FORKED_FRAMEWORKS: frozenset[Framework] = frozenset(
    ("lightgbm", "onnx", "torch_export", "torch_state", "torchscript", "xgboost")
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Warmth:
    """The kind of containers that a fork server is made for: containers of equal warmth can be forked from it.

    ``modules`` are imported besides Clipper's runtime. ``variables`` are those that libraries read on import, as sorted
    pairs.
    """

    python: str
    modules: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def warmth_of(spec: VersionSpec, python: str, variables: Mapping[str, str], names: Iterable[str]) -> Warmth | None:
    """Return the warmth of a version's containers, by the variables ``names``; None if it brings its own program."""
    if spec.loader in ("binary", "image"):
        return None
    found: set[str] = set()
    for need in spec.needs:
        if (name := _NAME.match(need)) is not None:
            found.update(_LIBRARIES.get(name[0].lower(), ()))
    if spec.framework in _FORKED_FRAMEWORKS:
        found.add(f"clipper.model.frameworks.{spec.framework}")
    read = tuple(sorted((name, variables[name]) for name in names if name in variables))
    return Warmth(python, tuple(sorted(found)), read)
