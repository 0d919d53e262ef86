"""A model file or folder is recognised as its framework's."""

import zipfile
from pathlib import Path

import pytest

from clipper.client.packaging.frameworks import recognise
from clipper.errors import InvalidArgument


def write(path: Path, content: bytes | tuple[str, ...]) -> Path:
    """A file, or a zip with empty members of these names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in content:
                archive.writestr(name, b"")
    return path


LEARNER = b'{"learner":{"attributes":{}'
UBJSON_LEARNER = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"
HDF5 = b"\x89HDF\r\n\x1a\n\x00"


@pytest.mark.parametrize(
    ("name", "content", "framework"),
    [
        ("m.joblib", b"x", "joblib"),
        ("m.PKL", b"x", "pickle"),
        ("m.pickle", b"x", "pickle"),
        ("m.onnx", b"\x08\x07\x12\x07pytorch", "onnx"),
        ("m.json", LEARNER, "xgboost"),
        ("m.ubj", UBJSON_LEARNER, "xgboost"),
        ("m.bst", UBJSON_LEARNER, "xgboost"),
        ("m.model", LEARNER, "xgboost"),
        ("m.model", b"tree\nversion=v4\n", "lightgbm"),
        ("m.txt", b"tree\nversion=v4\n", "lightgbm"),
        ("m.pt", ("net/data.pkl", "net/code/__torch__.py"), "torchscript"),
        ("m.pth", ("net/data.pkl", "net/code/__torch__.py"), "torchscript"),
        ("m.pt2", ("archive_format",), "torch_export"),
        ("m.keras", ("metadata.json", "config.json"), "keras"),
        ("m.h5", HDF5, "keras"),
        ("deploy.prototxt", b'name: "net"\nlayer {}', "caffe"),
        ("deploy.prototxt.txt", b"layer {}", "caffe"),
    ],
)
def test_a_file(tmp_path: Path, name: str, content: bytes | tuple[str, ...], framework: str) -> None:
    assert recognise(write(tmp_path / name, content)) == framework


@pytest.mark.parametrize(
    ("files", "framework"),
    [
        (("saved_model.pb", "variables/variables.index"), "tensorflow"),
        (("MLmodel", "model.onnx", "requirements.txt"), "mlflow"),
        (("metadata/part-00000", "data/part-00000.parquet"), "spark"),
        (("deploy.prototxt", "res10.caffemodel"), "caffe"),
        (("deploy.prototxt.txt", "res10.caffemodel"), "caffe"),
        (("model.onnx", "model.onnx.data"), "onnx"),
    ],
)
def test_a_folder(tmp_path: Path, files: tuple[str, ...], framework: str) -> None:
    for name in files:
        write(tmp_path / name, b"x")
    assert recognise(tmp_path) == framework


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.onnx", b"\x80\x04x", "named like an ONNX model, but begins with"),
        ("m.json", b'{"a": 1}', "XGBoost's save_model"),
        ("m.model", b"binf\x00", "XGBoost's save_model in JSON or UBJSON or LightGBM's"),
        ("m.txt", b"a text", "LightGBM"),
        ("m.pth", ("net/data.pkl", "net/data/0"), "--framework torch_state"),
        ("m.pt2", b"x", "torch.export"),
        ("m.keras", ("x",), "named like Keras 3's, but begins with"),
        ("m.keras", b"PK\x03\x04\x14\x00", "named like Keras 3's, but lacks its end: copy or save it again"),
        ("deploy.prototxt", b"\xff\xfe", "Caffe"),
        ("net.caffemodel", b"x", "deploy Caffe's .prototxt, with --data and this file, or the folder of both$"),
        ("saved_model.pb", b"x", "deploy the SavedModel folder that holds it$"),
        ("m.csv", b"x", "its ending is .csv; expected a file of scikit-learn"),
        ("m.onnx", b"", "is empty"),
    ],
)
def test_a_file_that_is_of_nothing_known(
    tmp_path: Path, name: str, content: bytes | tuple[str, ...], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says):
        recognise(write(tmp_path / name, content))


def test_a_folder_with_two_models_is_of_neither(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write(tmp_path / name, b"\x08\x07")
    with pytest.raises(InvalidArgument, match=r"b\.onnx: deploy /.*/a\.onnx or /.*/b\.onnx, which"):
        recognise(tmp_path)


def test_a_folder_around_a_model_says_where_that_is(tmp_path: Path) -> None:
    write(tmp_path / "export" / "1" / "saved_model.pb", b"x")
    with pytest.raises(InvalidArgument, match=r"export', which holds 1: deploy /.*/export/1, which is in it$"):
        recognise(tmp_path / "export")


def test_a_folder_without_anything(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"the model folder '{tmp_path}' is empty: expected a folder of MLflow"):
        recognise(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file or directory; expected the path of"):
        recognise(tmp_path / "m.onnx")
