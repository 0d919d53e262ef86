"""Boosters of each kind of objective, on data sets of scikit-learn, and what XGBoost itself answers."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

folder = Path(sys.argv[1])
cases = {}


def train(data, objective, rounds=10, **parameters):
    rows, targets = data(return_X_y=True)
    matrix = xgboost.DMatrix(rows, targets)
    booster = xgboost.train({"objective": objective, "nthread": 1, **parameters}, matrix, rounds)
    return booster, rows[::40]


def case(name, target, rows, expected, **more):
    inputs = rows.astype(np.float32)
    fixed = {"target": target, "framework": "xgboost", "inputs": inputs.tolist(), "expected": expected}
    cases[name] = {**fixed, **more}


booster, rows = train(load_breast_cancer, "binary:logistic")
booster.save_model(folder / "binary.json")
scores = booster.predict(xgboost.DMatrix(rows))
case("binary", "binary.json", rows, (scores > 0.5).astype(int).tolist(), takes="float32[30]")
case("binary probabilities", "binary.json", rows, np.stack((1 - scores, scores), 1).tolist(), output="probabilities")
case("unknown output", "binary.json", rows, [], output="logits")
both = [{"label": int(each > 0.5), "probabilities": [1 - each, each]} for each in scores]
for each in both:
    each["probabilities"] = np.array(each["probabilities"], np.float32).tolist()
case("binary both", "binary.json", rows, both, output="label,probabilities")

for objective in ("multi:softmax", "multi:softprob"):
    booster, rows = train(load_digits, objective, num_class=10)
    target = f"{objective.partition(':')[2]}.ubj"
    booster.save_model(folder / target)
    booster.set_param({"objective": "multi:softprob"})
    scores = booster.predict(xgboost.DMatrix(rows))
    case(objective, target, rows, scores.argmax(1).tolist(), takes="float32[64]")
    case(f"{objective} probabilities", target, rows, scores.tolist(), output="probabilities")
    by_class = [dict(zip("0123456789", row)) for row in scores.tolist()]
    case(f"{objective} by class", target, rows, by_class, output="class_probabilities")
    case(f"{objective} of one row", target, rows[:1], scores[:1].argmax(1).tolist())

for kind in ("gbtree", "dart", "gblinear"):
    booster, rows = train(load_diabetes, "reg:squarederror", booster=kind)
    booster.save_model(folder / f"{kind}.json")
    case(kind, f"{kind}.json", rows, booster.predict(xgboost.DMatrix(rows)).tolist(), takes="float32[10]")

# Features that have names, of which one is a category by its number.
random = np.random.default_rng(1)
rows = np.stack((random.integers(0, 5, 200), random.normal(size=200)), 1).astype(np.float32)
form = {"feature_names": ["kind", "size"], "feature_types": ["c", "q"], "enable_categorical": True}
for kind in ("gbtree", "dart"):
    matrix = xgboost.DMatrix(rows, rows[:, 0] % 2 + rows[:, 1], **form)
    booster = xgboost.train({"objective": "reg:squarederror", "booster": kind, "nthread": 1}, matrix, 5)
    booster.save_model(folder / f"categories_{kind}.json")
    target, expected = f"categories_{kind}.json", booster.predict(matrix)[:20].tolist()
    case(f"categories, {kind}, as a list", target, rows[:20], expected, input_type="float32[2]")
    records = [dict(zip(form["feature_names"], row)) for row in rows[:20].tolist()]
    case(f"categories, {kind}", target, rows[:20], expected, inputs=records, takes="kind: float32?, size: float32?")
    named = 'kind: string{"0", "1", "2", "3", "4"}, size: float64'
    texts = [{"kind": f"{row['kind']:g}", "size": row["size"]} for row in records]
    case(f"categories, {kind}, declared", target, rows[:20], expected, inputs=texts, input_type=named)
case("regressor's probabilities", "gbtree.json", rows, [], output="probabilities")

rows, targets = load_breast_cancer(return_X_y=True)
model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, learning_rate=1.0, n_jobs=1)
model.fit(rows[:300], targets[:300], eval_set=[(rows[300:], targets[300:])], verbose=False)
assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
model.save_model(folder / "stopped.json")
expected = model.predict_proba(rows[::40]).tolist()
case("stopped early", "stopped.json", rows[::40], expected, output="probabilities")

# Pickled models: a booster, which takes no arrays by itself, and an estimator.
booster, rows = train(load_breast_cancer, "binary:logistic")
(folder / "booster.pkl").write_bytes(pickle.dumps(booster))
expected = (booster.predict(xgboost.DMatrix(rows)) > 0.5).astype(int).tolist()
case("pickled booster", "booster.pkl", rows, expected, framework="pickle")
(folder / "estimator.pkl").write_bytes(pickle.dumps(model))
asked = rows.astype(np.float32)
case("estimator", "estimator.pkl", rows, model.predict(asked).tolist(), framework="pickle", input_type="float32[30]")

(folder / "cases.json").write_text(json.dumps(cases))
