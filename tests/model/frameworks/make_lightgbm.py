"""Boosters of each kind of objective, on data sets of scikit-learn, and what LightGBM itself answers."""

import json
import sys
from pathlib import Path

import joblib
import lightgbm
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

folder = Path(sys.argv[1])
cases = {}


def train(data, target, objective, **parameters):
    """Train and save a booster; return some rows, and its scores of them."""
    rows, targets = data(return_X_y=True)
    fixed = {"num_threads": 1, "verbose": -1, "seed": 1}
    dataset = lightgbm.Dataset(rows, targets)
    booster = lightgbm.train({"objective": objective, **fixed, **parameters}, dataset, num_boost_round=10)
    booster.save_model(folder / target)
    return rows[::40], booster.predict(rows[::40], num_threads=1)


def case(name, target, rows, expected, **more):
    cases[name] = {"target": target, "framework": "lightgbm", "inputs": rows.tolist(), "expected": expected, **more}


rows, scores = train(load_breast_cancer, "binary.txt", "binary")
case("binary", "binary.txt", rows, (scores > 0.5).astype(int).tolist())
case("binary probabilities", "binary.txt", rows, np.stack((1 - scores, scores), 1).tolist(), output="probabilities")
case(
    "both",
    "binary.txt",
    rows[:1],
    [{"labels": int(scores[0] > 0.5), "probabilities": [1 - scores[0], scores[0]]}],
    output="labels,probabilities",
)

for objective in ("multiclass", "multiclassova"):
    target = f"{objective}.txt"
    rows, scores = train(load_digits, target, objective, num_class=10)
    case(objective, target, rows, scores.argmax(1).tolist())
    case(f"{objective} probabilities", target, rows, scores.tolist(), output="probabilities")

for objective in ("regression", "poisson"):
    rows, scores = train(load_diabetes, f"{objective}.txt", objective)
    case(objective, f"{objective}.txt", rows, scores.tolist())
case("declared as float32", "regression.txt", rows[:2].astype(np.float32), [], input_type="float32[10]")
cases["declared as float32"]["expected"] = (
    lightgbm.Booster(model_file=folder / "regression.txt").predict(rows[:2].astype(np.float32)).tolist()
)
case("regressor's labels", "regression.txt", rows, [], output="labels")
case("another length", "regression.txt", rows, [], input_type="float64[11]")

# Pickled models: a booster, and an estimator with labels of its own.
joblib.dump(lightgbm.Booster(model_file=folder / "multiclass.txt"), folder / "booster.joblib")
cases["pickled booster"] = {**cases["multiclass"], "target": "booster.joblib", "framework": "joblib"}
rows, targets = load_breast_cancer(return_X_y=True)
estimator = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(rows, np.where(targets, "yes", "no"))
joblib.dump(estimator, folder / "estimator.joblib")
case("estimator", "estimator.joblib", rows[::40], estimator.predict(rows[::40]).tolist(), framework="joblib")

(folder / "cases.json").write_text(json.dumps(cases))
