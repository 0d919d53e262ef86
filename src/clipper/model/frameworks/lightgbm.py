"""LightGBM's boosters, in the form of ``save_model``."""

import re
from dataclasses import replace
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
from clipper.model.frameworks.table import BOOSTER_CATEGORIES, matrix, number, of_categories
from clipper.model.model import Inputs
from clipper.values.records import MAX_FIELDS, Field, RecordType
from clipper.values.types import DType, InputType

# The line of a model file that says which columns were categories.
_CATEGORICAL = re.compile(r"^\[categorical_feature: ([0-9,]*)\]$", re.MULTILINE)

_CLASSIFYING = ("binary", "multiclass", "multiclassova")


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a booster. Raises ContainerFailed if its objective does not have the requested output."""
    return model_of(lightgbm.Booster(model_file=str(source.path)), source)


def model_of(booster: Any, source: FrameworkSource) -> FrameworkModel:
    """Serve a booster, from a model file or a pickle. Raises like ``load``."""
    # For example, ``multiclass num_class:3``. A training with the user's own objective leaves none.
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]
    # A booster with a single tree for each iteration tells two classes apart.
    classes = max(2, booster.num_model_per_iteration()) if objective in _CLASSIFYING else 0
    names, answer = chosen_answer(source, score_answers(classes) if classes else regressor_answers())
    threads = thread_count()
    fields = fields_of(booster)
    record = RecordType(fields) if 0 < len(fields) <= MAX_FIELDS else None
    # The booster takes a category as its place among the training's categories, which the booster has.
    read = (lambda rows: rows) if record is None else matrix(record, np.float64)

    def predict_batch(rows: Inputs) -> Any:
        return answer(np.asarray(booster.predict(read(rows), num_threads=threads)))

    takes = record or InputType(DType.FLOAT64, (booster.num_feature(),))
    gives = classifier_type(names, range(classes), DType.INT64, DType.FLOAT64) if classes else None
    return FrameworkModel(predict_batch, takes, f"lightgbm {lightgbm.__version__}", output_type=gives)


def fields_of(model: Any) -> tuple[Field, ...]:
    """Return the columns that a booster, or an estimator with one, was trained on; none if they had no names."""
    booster = getattr(model, "booster_", model)
    names = booster.feature_name()
    if names == [f"Column_{index}" for index in range(len(names))]:
        return ()
    categories = dict(zip(_categorical(booster), booster.pandas_categorical or ()))
    fields = (of_categories(name, categories.get(place, ()), BOOSTER_CATEGORIES) for place, name in enumerate(names))
    # A booster answers whatever is missing.
    return tuple(replace(field or number(name), is_nullable=True) for name, field in zip(names, fields))


def _categorical(booster: Any) -> list[int]:
    """Return the places of the columns that were categories."""
    found = _CATEGORICAL.search(booster.model_to_string(num_iteration=1))
    return sorted(int(place) for place in found[1].split(",")) if found is not None and found[1] else []
