"""A scikit-learn pipeline that reads digits, as MLflow saves it: ``mlflow_digits.py FOLDER DIGITS_CSV_GZ``."""

import sys
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TRAINED_ON = 1500


def main(folder: Path, digits: Path) -> None:
    table = np.loadtxt(digits, delimiter=",")
    images, labels = table[:, :64], table[:, 64].astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(images[:TRAINED_ON], labels[:TRAINED_ON])
    signature = infer_signature(images, model.predict(images))
    mlflow.sklearn.save_model(model, folder / "digits", signature=signature)
    np.save(folder / "inputs.npy", images[TRAINED_ON : TRAINED_ON + 64])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
