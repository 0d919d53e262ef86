"""MLflow's folders with each kind of signature, and what their Python functions answer."""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

folder = Path(sys.argv[1])
cases = {}


def case(name, target, inputs, expected, **more):
    cases[name] = {"target": target, "framework": "mlflow", "inputs": inputs, "expected": expected, **more}


def save(name, model, signature=None, **more):
    """Save a function or an estimator; return its Python function."""
    fixed = {"signature": signature, "pip_requirements": [], **more}
    if callable(model) or isinstance(model, mlflow.pyfunc.PythonModel):
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
case("columns", "columns", frame[::10].to_dict("records"), function.predict(frame[::10]).tolist())
rows = frame[::10].to_numpy().tolist()
case("columns as a list", "columns", rows, function.predict(frame[::10]).tolist(), input_type="float64[4]")
# Whole numbers in a column of doubles: JavaScript writes 40000.0 so.
whole = frame[:3].round().astype({"petal width (cm)": "float32"})
objects = [{name: int(value) for name, value in row.items()} for row in whole.to_dict("records")]
case("whole numbers", "columns", objects, function.predict(whole).tolist())


def describe(model_input: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.DataFrame({"length": model_input["text"].str.len(), "upper": model_input["text"].str.upper()})


outputs = Schema([ColSpec("long", "length"), ColSpec("string", "upper")])
function = save("texts", describe, ModelSignature(Schema([ColSpec("string", "text")]), outputs))
texts = ["one", "three", "größer"]
records = function.predict(pandas.DataFrame({"text": texts})).to_dict("records")
objects = [{"text": text} for text in texts]
case("texts", "texts", objects, records)
case("texts without a name", "texts", texts, records, input_type="string")
case("one column", "texts", objects, [record["upper"] for record in records], output="upper")
case("unknown column", "texts", [], [], output="lower")


def price(model_input: pandas.DataFrame) -> list[float]:
    return (model_input["area"] * model_input["city"].map({"Rome": 2.0, "Oslo": 3.0})).tolist()


mixed = Schema([ColSpec("string", "city"), ColSpec("double", "area"), ColSpec("string", "note", required=False)])
save("mixed", price, ModelSignature(mixed))
flats = [{"city": "Rome", "area": 50.0, "note": "old"}, {"city": "Oslo", "area": 20.5}]
case("mixed", "mixed", flats, [100.0, 61.5])
case("mixed as texts", "mixed", [json.dumps(flat) for flat in flats], [100.0, 61.5], input_type="string")
texts = ['{"area": 1.0}', "no JSON", json.dumps(flats[0])]
case("not all columns", "mixed", texts, [None, None, 100.0], input_type="string")


class Seen(mlflow.pyfunc.PythonModel):
    """Answers what it sees of each row."""

    def predict(self, context, model_input, params=None):
        types = model_input.dtypes.astype(str).to_dict()
        rows = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
        return [f"{types} {sorted(row.items())!r} {sorted((params or {}).items())}" for row in rows]


every = Schema(
    [
        ColSpec("boolean", "b"),
        ColSpec("integer", "i"),
        ColSpec("long", "l"),
        ColSpec("float", "f"),
        ColSpec("double", "d"),
        ColSpec("string", "s"),
        ColSpec("binary", "raw"),
        ColSpec("datetime", "at"),
        ColSpec("long", "maybe", required=False),
        ColSpec("string", "note", required=False),
        ColSpec(Array(DataType.double), "list"),
        ColSpec(Object([Property("x", DataType.long)]), "object"),
    ]
)
parameters = ParamSchema(
    [
        ParamSpec("alpha", DataType.double, 0.5),
        ParamSpec("names", DataType.long, [1, 2], (-1,)),
        ParamSpec("since", DataType.datetime, "2024-02-29T12:00:00"),
    ]
)
function = save("every", Seen(), ModelSignature(every, params=parameters))
row = {
    **{"b": True, "i": 1, "l": 2**53 + 1, "f": 0.5, "d": 3, "s": "x", "raw": "AAE=", "at": "2026-11-30T12:00:00"},
    **{"maybe": 7, "note": "n", "list": [1, 2], "object": '{"x": 1}'},
}
asked = [row, {**row, "maybe": None, "note": None}, {**row, "alpha": 2.0}, {**row, "l": 5, "names": [3]}]
asked.append({**row, "since": "2026-01-02"})
expected = []
for each in asked:
    given = {name: value for name, value in each.items() if name in ("alpha", "names", "since")}
    frame = pandas.DataFrame({name: [value] for name, value in each.items() if name not in given})
    frame = frame.astype({"i": "int32", "f": "float32", "d": "float64", "note": "str"})
    # A column is optional only as a whole: a frame has no whole number that is missing.
    frame = frame.drop(columns=["maybe"]) if each["maybe"] is None else frame
    frame["raw"], frame["at"] = [each["raw"].encode()], pandas.to_datetime(frame["at"]).astype("datetime64[ns]")
    frame["object"], frame["list"] = [json.loads(each["object"])], [np.array(each["list"], float)]
    expected += function.predict(frame, params=given or None)
asked = [{**each, "raw": each["raw"]} for each in asked]
case("every type", "every", asked, expected)


def add(model_input: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"sum": model_input["a"] + model_input["b"], "twice": 2 * model_input["a"]}


tensors = Schema([TensorSpec(np.dtype("float32"), (-1, 2), "a"), TensorSpec(np.dtype("float32"), (-1, 2), "b")])
save("tensors", add, ModelSignature(tensors))
objects = [{"a": [1.0, 2.0], "b": [0.5, 4.0]}, {"a": [3.0, 0.0], "b": [1.0, 1.0]}]
expected = [{"sum": [1.5, 6.0], "twice": [2.0, 4.0]}, {"sum": [4.0, 1.0], "twice": [6.0, 0.0]}]
case("tensors by name", "tensors", objects, expected)
case("tensors as texts", "tensors", [json.dumps(each) for each in objects], expected, input_type="string")

(folder / "cases.json").write_text(json.dumps(cases))
