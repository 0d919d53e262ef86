"""The models of a table, and what they are asked: ``table_model.py FOLDER`` fits and writes them.

A row has 20 numbers, some of them missing, and 10 texts, each one of a few. Each model is a pipeline that a DataFrame
was given: of scikit-learn alone (``table``), and with LightGBM (``trees``).
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

NUMBERS = [f"number_{place}" for place in range(20)]
TEXTS = [f"text_{place}" for place in range(10)]
# Of the bodies that a load sends, one after the other.
ROWS = 2048
MISSING = 0.05


def table(count, seed):
    """Columns of so many rows, and the label of each row, 0 or 1."""
    random = np.random.default_rng(seed)
    numbers = np.round(random.normal(size=(count, len(NUMBERS))), 4)
    # The first text is one of three, the last one of 30.
    codes = np.column_stack([random.integers(0, 3 * (place + 1), count) for place in range(len(TEXTS))])
    weights = np.random.default_rng(12345).normal(size=len(NUMBERS))
    labels = (numbers @ weights + np.sin(codes).sum(axis=1) > 0).astype(int)
    numbers[random.random(numbers.shape) < MISSING] = np.nan
    columns = dict(zip(NUMBERS, numbers.T))
    columns |= {name: [f"{name}_{code}" for code in codes[:, place]] for place, name in enumerate(TEXTS)}
    return pd.DataFrame(columns), labels


def frame(rows):
    """A DataFrame of rows that are dicts, column by column, which is quicker than by pandas' own reader of dicts."""
    columns = {name: np.array([row[name] for row in rows], float) for name in NUMBERS}
    return pd.DataFrame(columns | {name: np.array([row[name] for row in rows], object) for name in TEXTS})


def fitted():
    """The model of each task."""
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    trained_on, labels = table(5000, seed=1)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = ColumnTransformer([("numbers", scaled, NUMBERS), ("texts", OneHotEncoder(), TEXTS)])
    codes = ColumnTransformer([("numbers", "passthrough", NUMBERS), ("texts", OrdinalEncoder(), TEXTS)])
    trees = Pipeline([("columns", codes), ("model", LGBMClassifier(n_jobs=1, verbose=-1))])
    of_texts = list(range(len(NUMBERS), len(NUMBERS) + len(TEXTS)))
    return {
        "table": make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(trained_on, labels),
        "trees": trees.fit(trained_on, labels, model__categorical_feature=of_texts),
    }


def main(folder):
    import joblib

    asked_for, _ = table(ROWS, seed=2)
    rows = json.loads(asked_for.to_json(orient="records", double_precision=4))
    asked = {}
    for task, model in fitted().items():
        joblib.dump(model, folder / f"{task}.joblib")
        asked[task] = {"rows": rows, "answers": model.predict(asked_for).tolist()}
        save_for_mlflow(model, asked_for, folder / f"{task}.mlflow")
    (folder / "rows.json").write_text(json.dumps(asked))


def save_for_mlflow(model, asked_for, folder):
    """Save a model as MLflow's server takes it, where there is MLflow."""
    try:
        from mlflow.models import infer_signature
        from mlflow.sklearn import save_model
    except ImportError:
        return
    signature = infer_signature(asked_for, model.predict(asked_for))
    save_model(model, folder, signature=signature, serialization_format="cloudpickle")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
