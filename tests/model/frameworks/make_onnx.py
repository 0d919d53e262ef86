"""Trained and made-up graphs of each form of inputs and outputs, and what onnxruntime itself answers."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

folder, magika, silero = map(Path, sys.argv[1:])
cases = {}


def run(target, **inputs):
    return onnxruntime.InferenceSession(folder / target, providers=["CPUExecutionProvider"]).run(None, inputs)


def case(name, target, inputs, expected, **more):
    cases[name] = {"target": target, "framework": "onnx", "inputs": inputs, "expected": expected, **more}


def graph(target, nodes, inputs, outputs, opset=18):
    """Save a graph of ``(operator, inputs, outputs, attributes)``, and of ``name: (element type, shape)``."""
    parts = [[helper.make_tensor_value_info(name, *form) for name, form in each.items()] for each in (inputs, outputs)]
    made = helper.make_graph([helper.make_node(*node[:3], **dict(*node[3:])) for node in nodes], "g", *parts)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), folder / target)


# Classifiers of scikit-learn, with the labels and probabilities that converters give them.
images, digits = load_digits(return_X_y=True)
images = images.astype(np.float32)
classifier = LogisticRegression(max_iter=50).fit(images[:500], digits[:500])
for target, zipmap in (("mapped.onnx", True), ("array.onnx", False)):
    made = to_onnx(classifier, images[:1], options={"zipmap": zipmap}, target_opset=18)
    (folder / target).write_bytes(made.SerializeToString())
    labels, probabilities = run(target, X=images[:30])
    case(target, target, images[:30].tolist(), labels.tolist())
    plain = [list(row.values()) for row in probabilities] if zipmap else probabilities.tolist()
    case(f"{target} probabilities", target, images[:30].tolist(), plain, output="probabilities")
    both = [{"label": label, "probabilities": row} for label, row in zip(labels.tolist(), plain)]
    case(f"{target} both", target, images[:30].tolist(), both, output="label,probabilities")
    if zipmap:
        by_class = [{str(label): number for label, number in row.items()} for row in probabilities]
        case("by class", target, images[:30].tolist(), by_class, output="class_probabilities")
        case("by its own name", target, images[:30].tolist(), by_class, output="output_probability")
case("bytes for floats", "array.onnx", images[:30].astype(int).tolist(), labels.tolist(), input_type="uint8[64]")
case("no such output", "array.onnx", [], [], output="logits")
case("wrong length", "array.onnx", [], [], input_type="float32[63]")

# A text a row. Lower case would need a locale that not every machine has.
texts, kinds = ["buy now", "cheap pills", "see you at noon", "the meeting is at noon"], ["spam", "spam", "ham", "ham"]
pipeline = make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(texts, kinds)
made = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options={"zipmap": False})
(folder / "spam.onnx").write_bytes(made.SerializeToString())
case("texts", "spam.onnx", texts, run("spam.onnx", text=np.array(texts, object)[:, None])[0].tolist())
assert cases["texts"]["expected"] == kinds

# A deep net that tells file types, asked about this file; a folder of it and a file beside it.
(folder / "magika").mkdir()
(model,) = magika.glob("magika/models/standard_v3_3/model.onnx")
(folder / "magika" / "model.onnx").write_bytes(model.read_bytes())
(folder / "magika" / "labels.json").write_text((model.parent / "config.min.json").read_text())
names = json.loads((folder / "magika" / "labels.json").read_text())["target_labels_space"]
content = Path(__file__).read_bytes().strip()
features = np.array([[*content[:1024], *content[-1024:]]] * 3, np.int32)
features[1] = 256  # an empty file
(scores,) = run("magika/model.onnx", bytes=features)
assert names[scores[0].argmax()] == "python"
case("magika", "magika", features.tolist(), scores.tolist())
case("magika labels", "magika", features.tolist(), scores.argmax(1).tolist(), output="labels")

# A recurrent net: what it gives as its state is given to it with the next piece of sound.
(model,) = silero.glob("silero_vad/data/silero_vad.onnx")
(folder / "silero.onnx").write_bytes(model.read_bytes())
random = np.random.default_rng(1)
state, rows, expected = np.zeros((2, 1, 128), np.float32), [], []
for _ in range(4):
    sound = random.normal(size=(1, 576)).astype(np.float32)
    rows.append({"input": sound.tolist(), "state": state.tolist(), "sr": 16000})
    speech, state = run("silero.onnx", input=sound, state=state, sr=np.array(16000, np.int64))
    expected.append({"output": speech.tolist(), "stateN": state.tolist()})
case("recurrent", "silero.onnx", rows, expected)
case("recurrent, one output", "silero.onnx", rows, [each["output"] for each in expected], output="output")

# Forms of one input: of any size, of one row at a time, and without a dimension for rows.
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
graph("free.onnx", [("GlobalAveragePool", ["x"], ["y"])], {"x": (FLOAT, ["n", 2, "h", None])}, {"y": (FLOAT, None)})
pictures = [random.normal(size=shape).astype(np.float32) for shape in ((2, 3, 3), (2, 4, 2), (2, 3, 3))]
pooled = [run("free.onnx", x=picture[None])[0][0].tolist() for picture in pictures]
case("any size", "free.onnx", [picture.tolist() for picture in pictures], pooled)

graph("single.onnx", [("Softmax", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, [1, 3])})
numbers = random.normal(size=(3, 3)).astype(np.float32)
softmax = [run("single.onnx", x=row[None])[0][0].tolist() for row in numbers]
case("one row at a time", "single.onnx", numbers.tolist(), softmax)
case("its labels", "single.onnx", numbers.tolist(), np.argmax(softmax, 1).tolist(), output="labels")

graph("whole.onnx", [("ReduceSum", ["x"], ["y"])], {"x": (FLOAT, [3])}, {"y": (FLOAT, None)})
sums = [run("whole.onnx", x=row)[0].tolist() for row in numbers]
case("no dimension for rows", "whole.onnx", numbers.tolist(), sums)

# Outputs that are not finite, and a shape that the graph states and does not keep.
graph("log.onnx", [("Log", ["x"], ["y"])], {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, ["n", 2])})
case("not finite", "log.onnx", [[0.0, 1.0], [-1.0, 1.0]], [[None, 0.0], [None, 0.0]])
FORGETTING = [
    ("Shape", ["x"], ["shape"]),
    ("Cast", ["shape"], ["float"], {"to": FLOAT}),
    ("Floor", ["float"], ["floor"]),
    ("Cast", ["floor"], ["same"], {"to": INT64}),
    ("Reshape", ["x", "same"], ["y"]),
]
graph("stale.onnx", FORGETTING, {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, ["n", 3])})
case("another shape than stated", "stale.onnx", [[0.0, 1.0]], [[0.0, 1.0]])

# Several inputs and outputs; small integers.
pair = {"a": (TensorProto.INT16, ["n", 2]), "b": (TensorProto.INT16, ["n", 2])}
outputs = {"sum": (TensorProto.INT16, ["n", 2]), "product": (TensorProto.INT16, ["n", 2])}
graph("pair.onnx", [("Add", ["a", "b"], ["sum"]), ("Mul", ["a", "b"], ["product"])], pair, outputs)
objects = [{"a": [1, 2], "b": [3, 4]}, {"b": [0, 0], "a": [5, 6]}]
both = [{"sum": [4, 6], "product": [3, 8]}, {"sum": [5, 6], "product": [0, 0]}]
case("two inputs", "pair.onnx", objects, both)
case("two inputs as texts", "pair.onnx", [json.dumps(each) for each in objects], both, input_type="string")
texts = ['{"a": [1, 2]}', json.dumps(objects[0])]
case("an input is absent", "pair.onnx", texts, [None, both[0]], input_type="string")

# Graphs that cannot be served.
graph("sum.onnx", [("ReduceSum", ["x"], ["y"])], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, None)})
(alone,) = run("sum.onnx", x=numbers[:1])
case("one value for all rows", "sum.onnx", numbers.tolist(), [*alone.tolist(), None, None])
complex_form = {"x": (TensorProto.COMPLEX64, ["n"])}
graph("complex.onnx", [("Identity", ["x"], ["y"])], complex_form, {"y": (TensorProto.COMPLEX64, ["n"])})
case("complex numbers", "complex.onnx", [], [])
(folder / "damaged.onnx").write_bytes(b"\x08\x09 no graph")
case("damaged", "damaged.onnx", [], [])

(folder / "cases.json").write_text(json.dumps(cases))
