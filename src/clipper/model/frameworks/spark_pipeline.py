"""A pipeline of Spark's fitted stages: the columns that it takes, their types, and the columns that it answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.feature import IndexToString, StringIndexerModel
from pyspark.ml.linalg import DenseVector, SparseVector, Vectors, VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

from clipper.model.frameworks.framework import LABEL, LABELS, PROBABILITIES, FrameworkSource, answered
from clipper.model.model import Inputs, Values
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# The input types of these stages; all other stages take vectors.
_TAKE_TEXT = {"RegexTokenizer", "StringIndexerModel", "Tokenizer"}
_TAKE_NUMBERS = {"Binarizer", "Bucketizer", "ImputerModel", "OneHotEncoderModel", "VectorAssembler"}

_INPUTS = ("inputCol", "inputCols", "featuresCol")
_OUTPUTS = ("outputCol", "outputCols", "predictionCol", "probabilityCol", "rawPredictionCol")


class Pipeline:
    """Answers batches with ``transform``. ``input_type``: a text or vector, or a record of the stages' columns."""

    def __init__(self, session: SparkSession, stages: Sequence[Any], source: FrameworkSource) -> None:
        """Find out what the stages take and answer. Raises ContainerFailed if the stages lack the requested output."""
        flat = list(_flat(stages))
        self._session = session
        self._labels = _labels(flat)
        self._stages = [stage for stage in flat if not _indexes_labels(stage, flat)]
        taken = _taken(self._stages)
        self.input_type = _input_type(taken)
        self._schema = StructType([StructField(name, _column_type(stage)) for name, stage in taken.items()])
        outputs = _outputs(self._stages)
        self._names = source.names(tuple(outputs), (next(iter(outputs)),))
        self._columns = [outputs[name] for name in self._names]

    def predict_batch(self, inputs: Inputs) -> Any:
        frame = self._session.createDataFrame(self._rows(inputs), self._schema, verifySchema=False)
        for stage in self._stages:
            frame = stage.transform(frame)
        columns = zip(self._names, zip(*frame.select(*self._columns).collect()))
        return answered({name: [self._plain(name, value) for value in values] for name, values in columns})

    def _rows(self, inputs: Inputs) -> list[tuple[Any, ...]]:
        columns = inputs.values() if isinstance(inputs, dict) else [inputs]
        return list(zip(*(_column(values, part.dataType) for values, part in zip(columns, self._schema))))

    def _plain(self, name: str, value: Any) -> Any:
        """Convert a value for JSON; a label's index becomes the label."""
        return self._labels[int(value)] if name in (LABEL, LABELS) and self._labels else plain(value)


def plain(value: Any) -> Any:
    """Convert a column's value for JSON."""
    return value.toArray().tolist() if isinstance(value, (DenseVector, SparseVector)) else value


def _column(values: Values, of_type: Any) -> list[Any]:
    if isinstance(of_type, VectorUDT):
        return [Vectors.dense(row) for row in values]
    return values.tolist() if isinstance(values, np.ndarray) else values


def _flat(stages: Sequence[Any]) -> Iterator[Any]:
    for stage in stages:
        if isinstance(stage, PipelineModel):
            yield from _flat(stage.stages)
        else:
            yield stage


def _columns(stage: Any, parameters: Sequence[str]) -> list[str]:
    """Return the names of columns that a stage's parameters give, in their order."""
    given = [stage.getOrDefault(name) for name in parameters if stage.hasParam(name) and stage.isDefined(name)]
    return [name for value in given for name in ([value] if isinstance(value, str) else value)]


def _indexes_labels(stage: Any, stages: Sequence[Any]) -> bool:
    """Whether a stage turns labels into numbers. There are no labels when a model is asked."""
    used = {name for other in stages for name in _columns(other, _INPUTS)}
    return isinstance(stage, StringIndexerModel) and used.isdisjoint(_columns(stage, ("outputCol", "outputCols")))


def _labels(stages: Sequence[Any]) -> list[str] | None:
    """Return the labels whose indices the pipeline's last model predicts, if it was fitted on such indices."""
    if isinstance(stages[-1], IndexToString):
        return None
    predicted = [name for stage in stages for name in _columns(stage, ("labelCol",))]
    indexers = [stage for stage in stages if _indexes_labels(stage, stages)]
    found = [stage for stage in indexers if predicted and predicted[-1] in _columns(stage, ("outputCol",))]
    return list(found[0].labels) if found else None


def _taken(stages: Sequence[Any]) -> dict[str, Any]:
    """Return the columns that no stage makes, each with the first stage that takes the column."""
    taken: dict[str, Any] = {}
    made: set[str] = set()
    for stage in stages:
        taken |= {name: stage for name in _columns(stage, _INPUTS) if name not in made and name not in taken}
        made.update(_columns(stage, _OUTPUTS))
    return taken


def _column_type(stage: Any) -> StringType | DoubleType | VectorUDT:
    kind = type(stage).__name__
    if kind in _TAKE_TEXT:
        return StringType()
    return DoubleType() if kind in _TAKE_NUMBERS else VectorUDT()


def _input_type(taken: Mapping[str, Any]) -> ValueType:
    fields = tuple(Field(name, _value_type(stage), _may_lack(stage)) for name, stage in taken.items())
    if len(fields) == 1 and not isinstance(_column_type(next(iter(taken.values()))), DoubleType):
        return fields[0].type
    return RecordType(fields)


def _value_type(stage: Any) -> InputType:
    of_type = _column_type(stage)
    if isinstance(of_type, VectorUDT):
        return InputType(DType.FLOAT64, (_size(stage),))
    return InputType(DType.STRING if isinstance(of_type, StringType) else DType.FLOAT64, ())


def _may_lack(stage: Any) -> bool:
    """Whether a stage takes rows without its column's value."""
    if type(stage).__name__ == "ImputerModel":
        return True
    return bool(stage.hasParam("handleInvalid") and stage.getOrDefault("handleInvalid") == "keep")


def _size(stage: Any) -> int | None:
    """Return the size of the vectors that a stage was fitted on, if the stage has it."""
    features = getattr(stage, "numFeatures", None)
    if isinstance(features, int) and features > 0:
        return features
    mean = getattr(stage, "mean", None)
    return int(mean.size) if isinstance(mean, (DenseVector, SparseVector)) else None


def _outputs(stages: Sequence[Any]) -> dict[str, str]:
    """Return the columns that can be answered, by name of the answer; the default comes first."""
    columns = [name for stage in stages for name in _columns(stage, _OUTPUTS)]
    last = stages[-1]
    predictions = [name for stage in stages for name in _columns(stage, ("predictionCol",))]
    probabilities = [name for stage in stages for name in _columns(stage, ("probabilityCol",))]
    if isinstance(last, IndexToString):
        predictions = _columns(last, ("outputCol",))
    outputs = dict.fromkeys((LABELS, LABEL), predictions[-1]) if predictions else {}
    if probabilities:
        outputs[PROBABILITIES] = probabilities[-1]
    return outputs | {name: name for name in reversed(columns)}
