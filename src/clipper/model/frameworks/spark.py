"""Spark MLlib: the folder of a saved model, or of a pipeline of models.

A model that can predict single vectors is asked for these: a vector takes a millisecond, a DataFrame a hundred.
"""

import importlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import LABEL, LABELS, PROBABILITIES, FrameworkModel, FrameworkSource, answered
from clipper.model.frameworks.spark_pipeline import Pipeline, plain
from clipper.model.model import Inputs
from clipper.values.types import DType, InputType

LIBRARY = f"pyspark {pyspark.__version__}"

# A single thread, no ports open to other processes, and files in the container's own folder. Batches are small, so the
# planning and compiling of large jobs would cost more than it saves.
_SETTINGS = {
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def load(source: FrameworkSource) -> FrameworkModel:
    """Start Spark in a Java process, which ends with this one, and load the folder. Raises ContainerFailed if there is
    no Java, or the folder does not hold a model of ``pyspark.ml``.
    """
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise ContainerFailed("Spark needs Java 17 or later, and there is no java on the PATH: install a JRE")
    session = _session()
    model = _read(source.path)
    if hasattr(model, "predict"):
        features = getattr(model, "numFeatures", None)
        takes = InputType(DType.FLOAT64, (features if isinstance(features, int) and features > 0 else None,))
        return FrameworkModel(_by_vector(model, source), takes, LIBRARY)
    stages = model.stages if isinstance(model, PipelineModel) else [model]
    pipeline = Pipeline(session, stages, source)
    return FrameworkModel(pipeline.predict_batch, pipeline.input_type, LIBRARY)


def _session() -> SparkSession:
    # Otherwise Spark looks up the machine's own name, and warns about the result.
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[1]").appName("clipper")
    here = dict.fromkeys(("spark.local.dir", "spark.sql.warehouse.dir"), str(Path.cwd()))
    return builder.config(map={**_SETTINGS, **here}).getOrCreate()


def _read(folder: Path) -> Any:
    """Load a model of the class that its metadata name; from a search over models, load the best one."""
    parts = sorted((folder / "metadata").glob("part-*"))
    if not parts:
        raise ContainerFailed(f"{folder.name} has no metadata/part-…: expected what a model's save() wrote")
    name = str(json.loads(parts[0].read_text().splitlines()[0]).get("class"))
    if not name.startswith("org.apache.spark.ml."):
        raise ContainerFailed(f"{folder.name} holds a {name}: expected a model of pyspark.ml, saved by its save()")
    module, _, attribute = name.replace("org.apache.spark", "pyspark", 1).rpartition(".")
    model = getattr(importlib.import_module(module), attribute).load(folder.resolve().as_uri())
    return getattr(model, "bestModel", model)


def _by_vector(model: Any, source: FrameworkSource) -> Callable[[Inputs], Any]:
    """Return a function that asks a model for one row after the other."""
    methods = _methods(model)
    chosen = {name: methods[name] for name in source.names(tuple(methods), (LABELS,))}

    def predict_batch(inputs: Inputs) -> Any:
        vectors = [Vectors.dense(row) for row in np.asarray(inputs, np.float64)]
        return answered({name: [plain(ask(vector)) for vector in vectors] for name, ask in chosen.items()})

    return predict_batch


def _methods(model: Any) -> Mapping[str, Callable[[Any], Any]]:
    """Return the methods that answer a vector, by the names of the columns that they fill."""
    methods = dict.fromkeys((LABELS, LABEL, model.getPredictionCol()), model.predict)
    if hasattr(model, "predictProbability"):
        methods |= {PROBABILITIES: model.predictProbability, model.getProbabilityCol(): model.predictProbability}
    if hasattr(model, "predictRaw"):
        methods[model.getRawPredictionCol()] = model.predictRaw
    return methods
