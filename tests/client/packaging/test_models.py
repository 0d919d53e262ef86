"""The artifact that a packed model becomes."""

import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import cloudpickle
import pytest

from clipper.client.packaging import code
from clipper.client.packaging.artifact import Artifact
from clipper.client.packaging.models import package, package_code
from clipper.errors import ClipperError, InvalidArgument, TooLarge
from tests.waiting import TIMEOUT_S


def names(artifact: Artifact) -> list[str]:
    with tarfile.open(artifact.path) as tar:
        return tar.getnames()


def read(artifact: Artifact, name: str) -> bytes:
    with tarfile.open(artifact.path) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return member.read()


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_model_file(tmp_path: Path) -> None:
    model = write(tmp_path / "digits.joblib", "weights")
    with package(model) as artifact:
        assert (artifact.loader, artifact.target, artifact.data) == ("file", "digits.joblib", None)
        assert artifact.framework == "joblib"
        assert names(artifact) == ["digits.joblib"]
        assert read(artifact, "digits.joblib") == b"weights"
        packed = artifact.path.read_bytes()
        assert artifact.digest == hashlib.sha256(packed).hexdigest()
        assert artifact.size_bytes == len(packed)
        assert b"".join(artifact.chunks()) == packed
    assert not artifact.path.exists()


def test_an_interrupted_pack_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model, folder = write(tmp_path / "digits.joblib"), tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(tarfile.TarFile, "addfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        package(model)
    assert not list(folder.iterdir())


def test_equal_models_have_equal_digests(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "m.pkl"), write(tmp_path / "b" / "m.pkl")
    os.utime(second, (1, 1))
    second.chmod(0o600)
    with package(str(first)) as one, package(str(second)) as other:
        assert one.digest == other.digest


def test_another_model_has_another_digest(tmp_path: Path) -> None:
    with package(write(tmp_path / "m.pkl", "a")) as one, package(write(tmp_path / "n" / "m.pkl", "b")) as other:
        assert one.digest != other.digest


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.joblib", None, "No such file"),
        ("empty.pkl", "", "is empty"),
        ("net.pt", "x", "named like a TorchScript program"),
        ("totals.py", "x", "name its class or function as module:attribute"),
        ("weights.gguf", "x", "deploy the class that reads them"),
        ("model.csv", "x", ".joblib"),
        ("model", "x", "none"),
        ("folder.pkl/x", "x", "the folder .*, which holds x: expected"),
    ],
)
def test_a_model_file_that_cannot_be_used(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InvalidArgument, match=says):
        package(tmp_path / name.split("/")[0])


def test_what_torch_saved_as_a_pickle_is_told_from_a_program(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as saved:
        saved.writestr("net/data.pkl", b"a pickled module")
        saved.writestr("net/version", "3")
    with pytest.raises(InvalidArgument, match=r"was written by torch\.save: a whole module, or a state dict"):
        package(tmp_path / "net.pth")


def test_a_function_of_this_process_goes_by_value(tmp_path: Path) -> None:
    factor = 3

    def triple(inputs: list[int]) -> list[int]:
        return [factor * value for value in inputs]

    with package(triple) as artifact:
        assert (artifact.loader, artifact.target) == ("file", "model.pkl")
        assert "code/cloudpickle/cloudpickle.py" in names(artifact)
        assert pickle.loads(read(artifact, "model.pkl"))([1, 2]) == [3, 6]


def test_a_function_is_read_in_a_python_without_any_package(tmp_path: Path) -> None:
    with package(lambda inputs: [2 * value for value in inputs]) as artifact, tarfile.open(artifact.path) as tar:
        tar.extractall(tmp_path, filter="data")
    program = "import sys, pickle; sys.path.insert(0, 'code'); print(pickle.load(open('model.pkl', 'rb'))([4]))"
    # -S leaves site-packages out.
    command = [sys.executable, "-I", "-S", "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (ran.stdout, ran.stderr) == ("[8]\n", "")


def test_a_function_of_a_users_module_needs_no_module_in_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "users_model.py", "FACTOR = 2\ndef double(inputs):\n    return [FACTOR * x for x in inputs]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("users_model")
    with package(module.double) as artifact:
        monkeypatch.delitem(sys.modules, "users_model")
        sys.path.remove(str(tmp_path))
        assert pickle.loads(read(artifact, "model.pkl"))([4]) == [8]
    assert "users_model" not in cloudpickle.list_registry_pickle_by_value()


def test_a_library_object_goes_by_name() -> None:
    with package(threading.current_thread) as artifact:
        assert b"current_thread" in read(artifact, "model.pkl")
        assert names(artifact) == ["model.pkl"]


def test_a_model_for_each_label() -> None:
    with package({"yes": abs, "no": round}) as artifact:
        assert pickle.loads(read(artifact, "model.pkl")) == {"yes": abs, "no": round}
    with pytest.raises(InvalidArgument, match="is of type dict: expected a model"):
        package({"yes": abs, "no": 5})


def test_an_object_that_cannot_be_pickled() -> None:
    lock = threading.Lock()
    with pytest.raises(InvalidArgument, match="cannot pickle this function"):
        package(lambda inputs: [lock for _ in inputs])


@pytest.mark.parametrize(
    ("model", "says"), [(5, "is of type int: expected a model"), (threading.Thread, "deploy an instance")]
)
def test_an_object_that_is_no_model(model: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        package(model)


MODEL = "import math\nclass Digits:\n    inner = 1\nif math.pi:\n    sometimes = 2\n"


def test_a_class_by_name_with_its_code_and_data(tmp_path: Path) -> None:
    write(tmp_path / "model.py", MODEL)
    write(tmp_path / "helpers" / "scale.py")
    write(tmp_path / "weights" / "a" / "w.bin")
    environment, home = ("my-env/pyvenv.cfg", "my-env/x.py"), ("home/registry.sqlite3", "home/artifacts/ab/code/x.py")
    for skipped in (".git/x.py", "venv/x.py", *environment, *home, "__pycache__/x.py", "notes.txt"):
        write(tmp_path / skipped)
    with package("model:Digits", data=tmp_path / "weights", folder=tmp_path) as artifact:
        assert (artifact.loader, artifact.target, artifact.data) == ("import", "model:Digits", "data/weights")
        assert names(artifact) == ["code/helpers/scale.py", "code/model.py", "data/weights/a/w.bin"]


def test_one_file_of_data(tmp_path: Path) -> None:
    write(tmp_path / "model.py", MODEL)
    data = write(tmp_path / "w.bin", "weights")
    with package("model:Digits", data=data, folder=tmp_path) as artifact:
        assert artifact.data == "data/w.bin"
        assert read(artifact, "data/w.bin") == b"weights"


@pytest.mark.parametrize(
    "target",
    ["model:sometimes", "model:Digits.inner", "model:math", "package:Model", "package.deep:Model", "json:loads"],
)
def test_targets_that_are_there(tmp_path: Path, target: str) -> None:
    write(tmp_path / "model.py", MODEL)
    write(tmp_path / "package" / "__init__.py", "from .deep import *")
    write(tmp_path / "package" / "deep.py", "Model = 1")
    with package(target, folder=tmp_path) as artifact:
        assert artifact.target == target


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("absent:Model", r"absent\.py"),
        ("package.absent:Model", r"package/absent\.py"),
        ("__main__:Model", "there is no module '__main__'"),
        ("model:Digit", "Digits"),
        ("model:inner", "does not define"),
        ("broken:x", "not valid Python"),
        ("model.py:Digits", "expected its module, model:Digits"),
    ],
)
def test_targets_that_are_not_there(tmp_path: Path, target: str, says: str) -> None:
    write(tmp_path / "model.py", MODEL)
    write(tmp_path / "broken.py", "def (")
    with pytest.raises(InvalidArgument, match=says):
        package(target, folder=tmp_path)


def test_the_code_is_not_run(tmp_path: Path) -> None:
    write(tmp_path / "model.py", "raise SystemExit\ndef predict(inputs): ...")
    with package("model:predict", folder=tmp_path) as artifact:
        assert names(artifact) == ["code/model.py"]


def test_a_folder_with_too_much_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_CODE_FILES", 2)
    for name in ("model", "b", "c"):
        write(tmp_path / f"{name}.py", "x = 1")
    with pytest.raises(TooLarge, match="2 Python files"):
        package("model:x", folder=tmp_path)


def test_a_folder_with_too_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_FOLDERS", 1)
    for name in ("model.py", "a/x.py", "b/x.py"):
        write(tmp_path / name, "x = 1")
    with pytest.raises(TooLarge, match="1 folders"):
        package("model:x", folder=tmp_path)


@pytest.mark.parametrize("data", ["absent", "hollow"])
def test_data_that_is_not_there(tmp_path: Path, data: str) -> None:
    write(tmp_path / "model.py", MODEL)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InvalidArgument, match=data):
        package("model:Digits", data=tmp_path / data, folder=tmp_path)


def test_data_beside_a_model_file_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ClipperError, match="module:attribute, programs and Caffe"):
        package(write(tmp_path / "m.pkl"), data=tmp_path)


def test_the_code_of_a_policy_and_a_loss(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Policy: pass\ndef loss(output, label): pass\n")
    packed = package_code(["own:Policy", "own:loss"], tmp_path)
    assert packed is not None
    with packed as artifact, tarfile.open(artifact.path) as tar:
        assert tar.getnames() == ["code/own.py"]
    with pytest.raises(InvalidArgument, match="does not define 'other'"):
        package_code(["own:Policy", "own:other"], tmp_path)
    with pytest.raises(InvalidArgument, match="'own:' is not module:attribute"):
        package_code(["own:"], tmp_path)


def test_installed_code_needs_none_of_a_folders(tmp_path: Path) -> None:
    assert package_code(["pytest:fixture"], tmp_path) is None


def test_a_model_folder_is_packed_whole(tmp_path: Path) -> None:
    for name in ("saved_model.pb", "variables/variables.index", ".hidden"):
        write(tmp_path / "net" / name)
    with package(tmp_path / "net") as artifact:
        assert (artifact.loader, artifact.target, artifact.framework) == ("file", "net", "tensorflow")
        assert names(artifact) == ["net/.hidden", "net/saved_model.pb", "net/variables/variables.index"]


def test_a_network_and_its_weights(tmp_path: Path) -> None:
    network, weights = write(tmp_path / "net.prototxt", "layer {}"), write(tmp_path / "net.caffemodel")
    with package(network, data=weights) as artifact:
        assert (artifact.target, artifact.data, artifact.framework) == ("net.prototxt", "data/net.caffemodel", "caffe")
    with pytest.raises(InvalidArgument, match=r"is the network without its weights: give its \.caffemodel"):
        package(network)


def test_a_class_and_its_state_dict(tmp_path: Path) -> None:
    write(tmp_path / "model.py", MODEL)
    weights = write(tmp_path / "w.pth")
    with package("model:Digits", data=weights, folder=tmp_path, framework="torch_state") as artifact:
        assert (artifact.loader, artifact.target, artifact.data) == ("import", "model:Digits", "data/w.pth")
        assert artifact.framework == "torch_state"


def test_a_framework_that_is_given_is_taken(tmp_path: Path) -> None:
    with package(write(tmp_path / "weights.bin"), framework="xgboost") as artifact:
        assert (artifact.target, artifact.framework) == ("weights.bin", "xgboost")


def test_a_framework_that_does_not_go_with_the_model(tmp_path: Path) -> None:
    write(tmp_path / "model.py", MODEL)
    with pytest.raises(InvalidArgument, match="onnx is for model files and folders: leave it out for code"):
        package("model:Digits", folder=tmp_path, framework="onnx")
    with pytest.raises(InvalidArgument, match=r"torch_state needs the state dict of model:Digits: .* --data"):
        package("model:Digits", folder=tmp_path, framework="torch_state")
    with pytest.raises(InvalidArgument, match="torch_state needs a class"):
        package(write(tmp_path / "w.pth"), framework="torch_state")
    with pytest.raises(InvalidArgument, match="leave it out for a Python object"):
        package(lambda inputs: inputs, framework="onnx")
