"""MLflow's folders with each kind of signature, and what their Python functions answer."""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

folder = Path(sys.argv[1])
cases = {}


def case(name, target, inputs, expected, **more):
    cases[name] = {"target": target, "framework": "mlflow", "inputs": inputs, "expected": expected, **more}


def save(name, model, signature=None, **more):
    """Save a function or an estimator; return its Python function."""
    fixed = {"signature": signature, "pip_requirements": [], **more}
    if callable(model):
        mlflow.pyfunc.save_model(folder / name, python_model=model, **fixed)
    else:
        mlflow.sklearn.save_model(model, folder / name, serialization_format="cloudpickle", **fixed)
    return mlflow.pyfunc.load_model(str(folder / name))


images, digits = load_digits(return_X_y=True)
classifier = LogisticRegression(max_iter=50).fit(images[:500], digits[:500])
function = save("tensor", classifier, infer_signature(images, classifier.predict(images)))
case("tensor", "tensor", images[:20].tolist(), function.predict(images[:20]).tolist())
case("no such output", "tensor", [], [], output="probabilities")

function = save("unsigned", classifier)
case("unsigned", "unsigned", images[:20].tolist(), function.predict(images[:20]).tolist())

flowers = load_iris(as_frame=True)
frame = flowers.data.assign(**{"petal width (cm)": flowers.data["petal width (cm)"].astype("float32")})
iris = LogisticRegression(max_iter=500).fit(frame, flowers.target)
function = save("columns", iris, infer_signature(frame, iris.predict(frame)), pyfunc_predict_fn="predict_proba")
case("columns", "columns", frame[::10].to_numpy().tolist(), function.predict(frame[::10]).tolist())


def describe(model_input: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({"length": model_input["text"].str.len(), "upper": model_input["text"].str.upper()})


outputs = Schema([ColSpec("long", "length"), ColSpec("string", "upper")])
function = save("texts", describe, ModelSignature(Schema([ColSpec("string", "text")]), outputs))
texts = ["one", "three", "größer"]
records = function.predict(pandas.DataFrame({"text": texts})).to_dict("records")
case("texts", "texts", texts, records)
case("one column", "texts", texts, [record["upper"] for record in records], output="upper")
case("unknown column", "texts", [], [], output="lower")


def price(model_input: pandas.DataFrame) -> list[float]:
    return (model_input["area"] * model_input["city"].map({"Rome": 2.0, "Oslo": 3.0})).tolist()


mixed = Schema([ColSpec("string", "city"), ColSpec("double", "area"), ColSpec("string", "note", required=False)])
save("mixed", price, ModelSignature(mixed))
flats = [{"city": "Rome", "area": 50.0, "note": "old"}, {"city": "Oslo", "area": 20.5}]
case("mixed", "mixed", [json.dumps(flat) for flat in flats], [100.0, 61.5])
case("not all columns", "mixed", ['{"city": "Rome"}', "no JSON", json.dumps(flats[0])], [None, None, 100.0])


def add(model_input: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"sum": model_input["a"] + model_input["b"], "twice": 2 * model_input["a"]}


tensors = Schema([TensorSpec(np.dtype("float32"), (-1, 2), "a"), TensorSpec(np.dtype("float32"), (-1, 2), "b")])
save("tensors", add, ModelSignature(tensors))
objects = [{"a": [1.0, 2.0], "b": [0.5, 4.0]}, {"a": [3.0, 0.0], "b": [1.0, 1.0]}]
expected = [{"sum": [1.5, 6.0], "twice": [2.0, 4.0]}, {"sum": [4.0, 1.0], "twice": [6.0, 0.0]}]
case("tensors by name", "tensors", [json.dumps(each) for each in objects], expected)

(folder / "cases.json").write_text(json.dumps(cases))
