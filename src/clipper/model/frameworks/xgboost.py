"""XGBoost's boosters, in the JSON or UBJSON of ``save_model``."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
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
from clipper.model.frameworks.table import BOOSTER_CATEGORIES, declared_record, matrix, number, of_categories
from clipper.model.model import Array, Inputs
from clipper.values.records import MAX_FIELDS, Field, RecordType
from clipper.values.types import CPU, DType, InputType

_CLASSIFYING = ("binary:logistic", "multi:softprob", "multi:softmax")


def load(source: FrameworkSource) -> FrameworkModel:
    """Load a booster. Raises ContainerFailed if its objective does not have the requested output."""
    return model_of(xgboost.Booster(model_file=str(source.path)), source)


def model_of(booster: Any, source: FrameworkSource) -> FrameworkModel:
    """Serve a booster, from a model file or a pickle. Raises like ``load``."""
    # XGBoost takes the processor instead, and says so, if it sees no GPU or was built without CUDA.
    booster.set_param({"nthread": thread_count(), "device": "cuda" if source.has_gpu else "cpu"})
    learner = json.loads(booster.save_config())["learner"]
    device = str(learner["generic_param"].get("device", "cpu"))
    where = "" if not source.has_gpu else CPU if device == "cpu" else device
    objective = str(learner["objective"]["name"])
    if objective == "multi:softmax":
        # This objective returns only labels. ``multi:softprob`` computes the same scores, and returns them.
        booster.set_param({"objective": "multi:softprob"})
    classes = max(2, int(learner["learner_model_param"]["num_class"])) if objective in _CLASSIFYING else 0
    names, answer = chosen_answer(source, _answers(objective, classes))
    predict = _predict(booster, learner["gradient_booster"]["name"])
    library = f"xgboost {xgboost.__version__}"
    gives = classifier_type(names, range(classes), DType.INT64, DType.FLOAT32) if classes else None
    fields = fields_of(booster, source)
    if not 0 < len(fields) <= MAX_FIELDS:
        takes = InputType(DType.FLOAT32, (booster.num_features(),))
        return FrameworkModel(lambda rows: answer(predict(rows)), takes, library, output_type=gives, device=where)
    record = RecordType(fields)
    # The booster takes a category as its place among the training's categories.
    read = matrix(record, np.float32)
    return FrameworkModel(lambda rows: answer(predict(read(rows))), record, library, output_type=gives, device=where)


def fields_of(model: Any, source: FrameworkSource | None = None) -> tuple[Field, ...]:
    """Return the columns that a booster, or an estimator with one, was trained on; none if they had no names.

    A booster answers whatever is missing. Categories that it lacks may be those that the deployment declares.
    """
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    names = booster.feature_names
    if not names:
        return ()
    kinds = booster.feature_types or ["float"] * len(names)
    known = _categories(booster) if "c" in kinds else {}
    said = declared_record(None if source is None else source.input_type)
    given = {field.name: field.categories for field in said.fields} if said is not None else {}
    fields = []
    for place, (name, kind) in enumerate(zip(names, kinds)):
        if kind != "c":
            fields.append(number(name, DType.BOOL if kind == "i" else DType.FLOAT32, is_nullable=True))
            continue
        # A booster without the categories, from before XGBoost 3.1, takes their places.
        field = of_categories(name, known.get(place) or given.get(name, ()), BOOSTER_CATEGORIES)
        fields.append(replace(field or number(name, DType.FLOAT32), is_nullable=True))
    return tuple(fields)


def _categories(booster: Any) -> dict[int, list[Any]]:
    """Return the categories of columns by their places, which boosters keep from XGBoost 3.1 on."""
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    kept = model.get("model", model.get("gbtree", {}).get("model", {})).get("cats", {}).get("enc", [])
    return {place: found for place, encoded in enumerate(kept) if (found := _decoded(encoded))}


def _decoded(encoded: Any) -> list[Any]:
    """Return the values of a column's categories: numbers, or texts from bytes that end at the offsets."""
    values, offsets = encoded.get("values", []), encoded.get("offsets")
    if offsets is None:
        return list(values)
    data = bytes(value & 0xFF for value in values)
    return [data[start:end].decode("utf-8", "replace") for start, end in pairwise(offsets)]


def _answers(objective: str, classes: int) -> dict[str, Callable[[Array], Any]]:
    if classes:
        return score_answers(classes)
    if objective in ("binary:hinge", "binary:logitraw"):
        # Scores are 0 and 1, or numbers of either sign.
        return {"labels": lambda scores: (scores > 0).astype(int)}
    return regressor_answers()


def _predict(booster: Any, kind: str) -> Callable[[Inputs], Array]:
    # Leave out the trees that were grown after the best iteration, while the training waited for an improvement.
    best = booster.attr("best_iteration")
    more = {"iteration_range": (0, 0) if best is None else (0, int(best) + 1), "validate_features": False}
    if kind == "gbtree":
        # This avoids the copy of the rows that predict() makes.
        return lambda rows: np.asarray(booster.inplace_predict(rows, **more))
    # The quicker way does not support linear models, and rounds the sums of DART's trees differently.
    types, names = booster.feature_types, booster.feature_names
    return lambda rows: np.asarray(
        booster.predict(
            xgboost.DMatrix(rows, feature_names=names, feature_types=types, enable_categorical=True), **more
        )
    )
