"""Spark MLlib's models and pipelines, fitted on the data that comes with it: ``spark_models.py FOLDER``."""

import json
import sys
from pathlib import Path

import numpy as np
import pyspark
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.clustering import KMeans
from pyspark.ml.feature import HashingTF, StandardScaler, StringIndexer, Tokenizer, VectorAssembler
from pyspark.ml.regression import LinearRegression
from pyspark.sql import DataFrame, SparkSession

DATA = Path(pyspark.__file__).parent / "data" / "mllib" / "sample_libsvm_data.txt"

SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

TEXTS = [("spark is fast", "yes"), ("slow is not", "no"), ("spark spark", "yes"), ("hadoop map", "no")]
NUMBERS = [(1.0, 2.0, 8.0), (2.0, 1.0, 7.0), (4.0, 4.0, 20.0), (0.0, 1.0, 3.0)]


def main(folder: Path) -> None:
    session = SparkSession.builder.master("local[1]").config(map=SETTINGS).getOrCreate()
    digits = session.read.format("libsvm").load(DATA.as_uri())
    save(of_vectors(digits), digits, folder)
    KMeans(k=2, seed=1).fit(digits).save(str(folder / "clusters"))
    scaled(digits).save(str(folder / "scaled"))
    save_answers(scaled(digits).transform(digits), folder / "scaled.json")
    texts = session.createDataFrame(TEXTS, ["text", "answer"])
    of_texts(texts).save(str(folder / "texts"))
    of_numbers(session.createDataFrame(NUMBERS, ["a", "b", "y"])).save(str(folder / "numbers"))


def of_vectors(digits: DataFrame) -> LogisticRegression:
    return LogisticRegression(maxIter=10, regParam=0.3, elasticNetParam=0.8).fit(digits)


def save(model: LogisticRegression, digits: DataFrame, folder: Path) -> None:
    model.save(str(folder / "logistic"))
    save_answers(model.transform(digits), folder / "logistic.json")
    np.save(folder / "inputs.npy", np.stack([row.features.toArray() for row in digits.collect()]))


def save_answers(answered: DataFrame, path: Path) -> None:
    rows = answered.select("prediction", "probability").collect()
    path.write_text(json.dumps([[row.prediction, row.probability.toArray().tolist()] for row in rows]))


def scaled(digits: DataFrame) -> PipelineModel:
    scaler = StandardScaler(inputCol="features", outputCol="scaled", withMean=True)
    return Pipeline(stages=[scaler, LogisticRegression(featuresCol="scaled", maxIter=10, regParam=0.3)]).fit(digits)


def of_texts(texts: DataFrame) -> PipelineModel:
    stages = [
        StringIndexer(inputCol="answer", outputCol="label"),
        Tokenizer(inputCol="text", outputCol="words"),
        HashingTF(inputCol="words", outputCol="features", numFeatures=1000),
        LogisticRegression(maxIter=10, regParam=0.001),
    ]
    return Pipeline(stages=stages).fit(texts)


def of_numbers(numbers: DataFrame) -> PipelineModel:
    columns = VectorAssembler(inputCols=["a", "b"], outputCol="features")
    return Pipeline(stages=[columns, LinearRegression(labelCol="y")]).fit(numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
