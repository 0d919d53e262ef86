import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipper.errors import ContainerFailed
from clipper.model.protocol.frames import RECORDS_VERSION
from clipper.model.runtime.evaluate import evaluate
from clipper.model.runtime.loading import ModelSource, load
from clipper.values.types import DType
from tests.model.runtime.caller import code, running, started
from tests.waiting import TIMEOUT_S

SPAM = (["buy now", "cheap pills", "see you at noon", "the meeting is at noon"], ["spam", "spam", "ham", "ham"])


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def classifier(digits: Any) -> Any:
    return make_pipeline(StandardScaler(), GaussianNB()).fit(*digits)


@pytest.fixture(autouse=True)
def path_and_modules_are_put_back() -> Iterator[None]:
    path = sys.path.copy()
    yield
    sys.path[:] = path
    sys.modules.pop("served", None)


def from_file(folder: Path, target: str, **more: Any) -> Any:
    return load(ModelSource(folder, "file", target, **more))


def from_import(folder: Path, source: str, target: str = "served:model", **more: Any) -> Any:
    code(folder, source)
    return load(ModelSource(folder, "import", target, **more))


def saved_with_another_version(folder: Path) -> str:
    model = GaussianNB().fit([[0.0], [1.0]], [0, 1])
    state = model.__getstate__()
    state["_sklearn_version"] = "0.99.1"
    reduced = Reduced(GaussianNB, state)
    (folder / "old.pkl").write_bytes(pickle.dumps(reduced))
    return "old.pkl"


class Reduced:
    """Pickles as an instance of another class with a state of one's choice."""

    def __init__(self, of: type, state: Any) -> None:
        self.of, self.state = of, state

    def __reduce__(self) -> Any:
        return self.of, (), self.state


def test_scikit_learn_file_serves(tmp_path: Path, digits: Any, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "digits.joblib")
    inputs, _ = digits
    with running(tmp_path, "--loader", "file", "--target", "digits.joblib") as container:
        with container.caller(greet=False) as caller:
            welcome = caller.greet()
            assert str(welcome.input_type) == "float64[64]"
            assert "scikit-learn" in welcome.runtime
            outputs = [int(output) for output in caller.predict(inputs[:200]).outputs]
        assert outputs == classifier.predict(inputs[:200]).tolist()


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl", "m.pickle"])
def test_pickles_and_joblib_files(tmp_path: Path, digits: Any, classifier: Any, name: str) -> None:
    if name == "m.joblib":
        joblib.dump(classifier, tmp_path / name, compress=3)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(classifier))
    model = from_file(tmp_path, name)
    assert np.array_equal(model.predict_batch(digits[0]), classifier.predict(digits[0]))
    assert str(model.input_type) == "float64[64]"


@pytest.mark.parametrize("searched", [False, True])
def test_pipeline_that_begins_with_a_text_vectorizer_takes_strings(tmp_path: Path, searched: bool) -> None:
    pipeline = make_pipeline(TfidfVectorizer(), MultinomialNB())
    model = GridSearchCV(pipeline, {"multinomialnb__alpha": [1.0]}, cv=2) if searched else pipeline
    joblib.dump(model.fit(*SPAM), tmp_path / "spam.joblib")
    loaded = from_file(tmp_path, "spam.joblib")
    assert loaded.input_type.dtype is DType.STRING
    assert list(loaded.predict_batch(["cheap now", "at noon"])) == ["spam", "ham"]


def test_estimator_fitted_on_named_columns_warns_of_nothing(tmp_path: Path, recwarn: Any) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.feature_names_in_ = np.array(["a"], dtype=object)
    joblib.dump(model, tmp_path / "m.joblib")
    with running(tmp_path, "--loader", "file", "--target", "m.joblib") as container:
        with container.caller(version=RECORDS_VERSION) as caller:
            assert caller.predict_columns("a: float64", (0.0,), (1.0,)).outputs == [b"0", b"1"]
        assert "feature names" not in container.log


def test_file_of_another_library_version_is_told(tmp_path: Path) -> None:
    options = ("--loader", "file", "--target", saved_with_another_version(tmp_path))
    with running(tmp_path, *options) as container, container.caller(greet=False) as caller:
        assert "(model saved with 0.99.1)" in caller.greet().runtime
        assert "InconsistentVersionWarning" in container.log
        assert "0.99.1" in container.log


CLASS = """
from pathlib import Path
class Model:
    input_type = "int32[2]"
    max_batch = 8
    output_type = "float32[10]"
    def __init__(self, model_data): self.data = model_data and Path(model_data).read_text()
    def predict_batch(self, inputs): return [self.data] * len(inputs)
"""


def test_class_gets_the_path_of_its_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights").write_text("w")
    model = from_import(tmp_path, CLASS, "served:Model", data="data/weights")
    assert model.predict_batch([1, 2]) == ["w", "w"]
    assert (str(model.input_type), model.max_batch, str(model.output_type)) == ("int32[2]", 8, "float32[10]")


def test_class_without_data_gets_none_and_the_deployments_type_wins(tmp_path: Path) -> None:
    model = from_import(tmp_path, CLASS, "served:Model", input_type="strings")
    assert model.predict_batch([1]) == [None]
    assert model.input_type.dtype is DType.STRING


@pytest.mark.parametrize(
    "source",
    [
        "def model(inputs): return inputs[::-1]",
        "class Reverses:\n  def predict_batch(self, inputs): return inputs[::-1]\nmodel = Reverses()",
        "class Reverses:\n  def predict(self, inputs): return inputs[::-1]\nmodel = Reverses()",
        "class model:\n  def __init__(self, model_data): pass\n  def __call__(self, inputs): return inputs[::-1]",
    ],
    ids=["function", "predict_batch", "predict", "callable"],
)
def test_forms_of_a_model(tmp_path: Path, source: str) -> None:
    model = from_import(tmp_path, source)
    assert model.predict_batch([1, 2]) == [2, 1]
    assert str(model.input_type) == "float64[*]"


def test_nested_attribute(tmp_path: Path) -> None:
    source = "class Box:\n  @staticmethod\n  def model(inputs): return inputs"
    assert from_import(tmp_path, source, "served:Box.model").predict_batch([1]) == [1]


@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        ("import not_there_at_all", "served:model", "'not_there_at_all', which .* name its package in --requirements"),
        ("model = 1", "served:other", "does not define other"),
        ("model = 1", "served:model", "is of type int: expected an object with predict_batch"),
        ("def model(inputs):\n    yield 1", "served:model", "yields its outputs in parts, as decoupled"),
        ("class model:\n  def __init__(self, d): pass\n  def predict_batch(self, x): yield 1",
         "served:model", "yields its outputs in"),
        ("class A:\n    def __call__(self, x):\n        yield 1\nmodel = A()", "served:model", "yields its outputs in"),
        ("async def model(inputs):\n    yield 1", "served:model", "yields its outputs in parts"),
        ("async def model(inputs):\n    return inputs", "served:model", "is a coroutine: expected a function"),
        ("model = 1", "served", "expected module:attribute"),
        ("model = 1", "elsewhere:model", "module 'elsewhere'"),
        ("def model(:", "served:model", "SyntaxError"),
        ("import sys; sys.exit('no licence')", "served:model", "SystemExit: no licence"),
        ("raise ValueError('two\\nlines')", "served:model", "ValueError: two lines"),
        ("class model:\n  def __init__(self): pass", "served:model",
         r"one argument model_data: .* Expected a class with __init__\(self, model_data\), .* add the argument"),
        ("class model:\n  def __init__(self, a, b): pass", "served:model", "missing a required argument: 'b'"),
        ("class model:\n  def __init__(self, d): raise TypeError('of mine')", "served:model", "TypeError: of mine"),
        ("class model:\n  input_type = 'complex'\n  def __init__(self, d): pass\n  def predict(self, x): pass",
         "served:model", "input type of served:model"),
        ("class model:\n  output_type = 'complex'\n  def __init__(self, d): pass\n  def predict(self, x): pass",
         "served:model", "output type of served:model"),
        ("class model:\n  output_type = 'a: int, a: int'\n  def __init__(self, d): pass\n  def predict(self, x): pass",
         "served:model", "output type of served:model: a record has the field 'a' twice"),
    ],
)  # fmt: skip
def test_module_that_cannot_be_loaded_says_why(tmp_path: Path, source: str, target: str, cause: str) -> None:
    with pytest.raises(ContainerFailed, match=cause) as caught:
        from_import(tmp_path, source, target)
    assert "\n" not in str(caught.value)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContainerFailed, match="model data data/w is not in the artifact"):
        from_import(tmp_path, CLASS, "served:Model", data="data/w")


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("m.pkl", b"not a pickle at all", "damaged"),
        ("m.pkl", b"", "damaged"),
        ("m.joblib", b"\x00" * 100, "damaged"),
    ],
)
def test_damaged_file_says_so(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ContainerFailed, match=cause):
        from_file(tmp_path, name)


def test_truncated_file_says_so(tmp_path: Path, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "m.joblib")
    whole = (tmp_path / "m.joblib").read_bytes()
    (tmp_path / "m.joblib").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ContainerFailed, match=r"model file m\.joblib cannot be loaded"):
        from_file(tmp_path, "m.joblib")


def test_probabilities_of_an_estimator(tmp_path: Path, digits: Any, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "m.joblib")
    model = from_file(tmp_path, "m.joblib", output="probabilities")
    assert np.array_equal(model.predict_batch(digits[0]), classifier.predict_proba(digits[0]))
    labels = from_file(tmp_path, "m.joblib", output="labels")
    assert np.array_equal(labels.predict_batch(digits[0]), classifier.predict(digits[0]))


def test_several_outputs_of_a_classifier(tmp_path: Path) -> None:
    spam = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(*SPAM)
    joblib.dump(spam, tmp_path / "spam.joblib")
    texts, expected = ["cheap now", "at noon"], spam.predict_proba(["cheap now", "at noon"])

    both = from_file(tmp_path, "spam.joblib", output="label,probabilities")
    answers = both.predict_batch(texts)
    assert answers["label"].tolist() == ["spam", "ham"] and np.array_equal(answers["probabilities"], expected)
    # The categories say which probability is of which class.
    assert str(both.output_type) == 'label: string{"ham", "spam"}, probabilities: float64[2]'

    by_class = from_file(tmp_path, "spam.joblib", output="class_probabilities")
    assert {name: each.tolist() for name, each in by_class.predict_batch(texts).items()} == {
        "ham": expected[:, 0].tolist(),
        "spam": expected[:, 1].tolist(),
    }
    assert str(by_class.output_type) == "ham: float64, spam: float64"
    assert str(from_file(tmp_path, "spam.joblib", output="label").output_type) == "None"
    assert str(from_file(tmp_path, "spam.joblib", output="probabilities").output_type) == "float64[2]"


def test_classes_are_of_their_own_type(tmp_path: Path, digits: Any, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "m.joblib")
    model = from_file(tmp_path, "m.joblib", output="label,probabilities")
    assert str(model.output_type).startswith("label: int64{0, 1, 2,")
    encoded = evaluate(model.predict_batch, lambda: digits[0][:2])
    assert [str(column.type) for column in encoded.columns] == ["int64[]", "float64[10]"]
    assert [json.loads(line)["label"] for line in encoded.lines().split(b"\n")] == [0, 1]


def test_a_classifier_of_several_targets(tmp_path: Path, digits: Any) -> None:
    inputs, labels = digits
    forest = RandomForestClassifier(2, random_state=0).fit(inputs, np.stack([labels, labels % 2], 1))
    joblib.dump(forest, tmp_path / "m.joblib")
    answers = from_file(tmp_path, "m.joblib", output="label,probabilities").predict_batch(inputs[:3])
    assert {name: each.shape for name, each in answers.items()} == {
        "label": (3, 2),
        "probabilities_0": (3, 10),
        "probabilities_1": (3, 2),
    }
    assert list(from_file(tmp_path, "m.joblib", output="probabilities").predict_batch(inputs[:2])) == list(answers)[1:]
    with pytest.raises(ContainerFailed, match="no output class_probabilities: it has label, probabilities, labels"):
        from_file(tmp_path, "m.joblib", output="class_probabilities")


def test_output_that_an_object_does_not_have(tmp_path: Path, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "m.joblib")
    known = "it has label, probabilities, class_probabilities, labels"
    with pytest.raises(ContainerFailed, match=rf"m\.joblib has no output logits: {known}"):
        from_file(tmp_path, "m.joblib", output="logits")
    with pytest.raises(ContainerFailed, match="has no output probabilities: it has label"):
        from_import(tmp_path, "def model(inputs): return inputs", output="probabilities")


def test_framework_that_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08")
    with pytest.raises(ContainerFailed, match=r"onnx model m\.onnx needs the module 'onnxruntime', which .* does not"):
        from_file(tmp_path, "m.onnx", framework="onnx")


def test_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "other.pkl").touch()
    with pytest.raises(ContainerFailed, match=r"m\.pkl is not in the artifact, which holds: other\.pkl"):
        from_file(tmp_path, "m.pkl")


@pytest.mark.parametrize("base", ["linear_model.LogisticRegression", "ensemble.RandomForestClassifier"])
def test_an_estimators_own_predict_batch_goes_before_its_predict(tmp_path: Path, base: str) -> None:
    source = f"""
import sklearn.ensemble, sklearn.linear_model
class Mine(sklearn.{base}):
    def predict_batch(self, inputs): return ["mine"] * len(inputs)
model = Mine().fit([[0.0], [1.0]], [0, 1])
"""
    assert from_import(tmp_path, source).predict_batch(np.zeros((2, 1))) == ["mine", "mine"]


def test_forest_deployed_for_rows_of_any_length_refuses_those_of_another(tmp_path: Path, digits: Any) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(*digits)
    joblib.dump(forest, tmp_path / "m.joblib")
    model = from_file(tmp_path, "m.joblib", input_type="doubles")
    assert np.array_equal(model.predict_batch(digits[0]), forest.predict(digits[0]))
    with pytest.raises(ValueError, match="expecting 64 features"):
        model.predict_batch(digits[0][:, :3])


def test_file_saved_in_the_script_that_defines_it_gives_advice(tmp_path: Path) -> None:
    script = "class Mine: pass\nimport pickle\npickle.dump(Mine(), open('m.pkl', 'wb'))"
    subprocess.run((sys.executable, "-c", script), cwd=tmp_path, check=True, timeout=TIMEOUT_S)
    with pytest.raises(ContainerFailed, match="move them to a module"):
        from_file(tmp_path, "m.pkl")


def test_declared_type_has_to_suit_the_estimator(tmp_path: Path, classifier: Any) -> None:
    joblib.dump(classifier, tmp_path / "m.joblib")
    with pytest.raises(ContainerFailed, match=r"float64\[784\] does not suit m.joblib, which takes float64\[64\]"):
        from_file(tmp_path, "m.joblib", input_type="float64[784]")
    assert str(from_file(tmp_path, "m.joblib", input_type="float32[64]").input_type) == "float32[64]"
    assert str(from_file(tmp_path, "m.joblib", input_type="floats").input_type) == "float32[*]"


def test_container_that_cannot_load_exits_with_the_cause_as_its_last_line(tmp_path: Path) -> None:
    with started(tmp_path, *code(tmp_path, "import not_there_at_all")) as container:
        assert container.wait() == 3
        assert "Traceback" in container.log
        last = container.log.splitlines()[-1]
        assert last.startswith("clipper: module served needs the module 'not_there_at_all'")


def test_model_that_does_not_fit_into_its_memory_says_so(tmp_path: Path) -> None:
    options = (*code(tmp_path, "model = bytes(8 * 1024 ** 3)"), "--memory-bytes", str(2 * 1024**3))
    with started(tmp_path, *options) as container:
        assert container.wait() == 3
        assert "does not fit into the container's memory" in container.log.splitlines()[-1]
