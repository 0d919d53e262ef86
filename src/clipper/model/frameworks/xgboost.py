"""XGBoost's boosters, as ``save_model`` writes them in JSON or UBJSON."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xgboost

from clipper.model.frameworks.framework import (
    FrameworkModel,
    FrameworkSource,
    chosen_answer,
    classifier_type,
    regressor_answers,
    score_answers,
    thread_count,
)
from clipper.model.model import Array, Inputs
from clipper.values.types import DType, InputType

_CLASSIFYING = ("binary:logistic", "multi:softprob", "multi:softmax")


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a booster. Raises ContainerFailed if its objective does not have the requested output."""
    return model_of(xgboost.Booster(model_file=str(source.path)), source)


def model_of(booster: Any, source: FrameworkSource) -> FrameworkModel:
    """Serve a booster, from a model file or a pickle. Raises like ``load``."""
    booster.set_param({"nthread": thread_count()})
    learner = json.loads(booster.save_config())["learner"]
    objective = str(learner["objective"]["name"])
    if objective == "multi:softmax":
        # This objective returns only labels; the other returns the same scores.
        booster.set_param({"objective": "multi:softprob"})
    classes = max(2, int(learner["learner_model_param"]["num_class"])) if objective in _CLASSIFYING else 0
    names, answer = chosen_answer(source, _answers(objective, classes))
    predict = _predict(booster, learner["gradient_booster"]["name"])
    return FrameworkModel(
        lambda rows: answer(predict(rows)),
        InputType(DType.FLOAT32, (booster.num_features(),)),
        f"xgboost {xgboost.__version__}",
        output_type=classifier_type(names, range(classes), DType.INT64, DType.FLOAT32) if classes else None,
    )


def _answers(objective: str, classes: int) -> dict[str, Callable[[Array], Any]]:
    if classes:
        return score_answers(classes)
    if objective in ("binary:hinge", "binary:logitraw"):
        # Scores are 0 and 1, or numbers of either sign.
        return {"labels": lambda scores: (scores > 0).astype(int)}
    return regressor_answers()


def _predict(booster: Any, kind: str) -> Callable[[Inputs], Array]:
    # Leave out trees that were grown after the best iteration, while a training waited for an improvement.
    best = booster.attr("best_iteration")
    more = {"iteration_range": (0, 0) if best is None else (0, int(best) + 1), "validate_features": False}
    if kind == "gbtree":
        # This avoids the copy of the rows that predict() makes.
        return lambda rows: np.asarray(booster.inplace_predict(rows, **more))
    # The quicker way has no linear models, and rounds the sums of DART's trees differently.
    types = booster.feature_types
    return lambda rows: np.asarray(
        booster.predict(xgboost.DMatrix(rows, feature_types=types, enable_categorical=True), **more)
    )
