"""LightGBM's boosters, as ``save_model`` writes them."""

from typing import Any

import lightgbm
import numpy as np

from clipper.model.frameworks.framework import (
    FrameworkModel,
    FrameworkSource,
    chosen_answer,
    classifier_type,
    regressor_answers,
    score_answers,
    thread_count,
)
from clipper.model.model import Inputs
from clipper.values.types import DType, InputType

_CLASSIFYING = ("binary", "multiclass", "multiclassova")


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a booster. Raises ContainerFailed if its objective does not have the requested output."""
    return model_of(lightgbm.Booster(model_file=str(source.path)), source)


def model_of(booster: Any, source: FrameworkSource) -> FrameworkModel:
    """Serve a booster, from a model file or a pickle. Raises like ``load``."""
    # One tree an iteration tells two classes apart.
    classes = max(2, booster.num_model_per_iteration()) if _objective(booster) in _CLASSIFYING else 0
    names, answer = chosen_answer(source, score_answers(classes) if classes else regressor_answers())
    threads = thread_count()

    def predict_batch(rows: Inputs) -> Any:
        return answer(np.asarray(booster.predict(rows, num_threads=threads)))

    takes = InputType(DType.FLOAT64, (booster.num_feature(),))
    gives = classifier_type(names, range(classes), DType.INT64, DType.FLOAT64) if classes else None
    return FrameworkModel(predict_batch, takes, f"lightgbm {lightgbm.__version__}", output_type=gives)


def _objective(booster: Any) -> str:
    # E.g. ``multiclass num_class:3``; a training with the user's own objective leaves none.
    text: str = booster.dump_model(num_iteration=1).get("objective", "")
    return text.partition(" ")[0]
