"""A linear model of Spark MLlib's, fitted to rows in LIBSVM's form: ``spark_linear.py FOLDER ROWS``."""

import sys
from pathlib import Path

from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession

FEATURES = 784
SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def main(folder: Path, rows: Path) -> None:
    session = SparkSession.builder.master("local[1]").config(map=SETTINGS).getOrCreate()
    data = session.read.format("libsvm").option("numFeatures", FEATURES).load(rows.as_uri())
    LogisticRegression(maxIter=20).fit(data).save(str(folder / "model"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
