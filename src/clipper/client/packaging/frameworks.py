"""Recognises the framework of a model file or folder by its name and first bytes, without running its code."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipper.errors import InvalidArgument
from clipper.values.types import Framework

_BEGIN_BYTES = 64
# At most this many entries of a folder are examined, and named in messages.
_SHOWN = 10
ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class _FileForm:
    """The form by which a framework's files are recognised.

    Attributes:
        endings: endings of file names, in lower case; frameworks may share one.
        fits: tells whether a file with such a name is the framework's.
        expected: the form in words, for messages.
    """

    framework: Framework
    endings: tuple[str, ...]
    fits: Callable[[Path], bool]
    expected: str


def recognise(path: Path) -> Framework:
    """Return the framework of the model at ``path``, a file or folder.

    Raises InvalidArgument if it cannot be read, is empty, or is of no known format. The message lists known formats.
    """
    if path.is_dir():
        return _of_folder(path)
    if not begin_of(path):
        raise InvalidArgument(f"the model file {str(path)!r} is empty")
    named = [form for form in _FILES if path.name.lower().endswith(form.endings)]
    if not named:
        raise InvalidArgument(f"cannot tell how to load {str(path)!r}: {_advice(path)}")
    for form in named:
        if form.fits(path):
            return form.framework
    begin = begin_of(path)
    if begin.startswith(ZIP) and not zipfile.is_zipfile(path):
        wrong = "lacks its end: copy or save it again"
    elif any(name.endswith("/data.pkl") for name in _zip_names(path)):
        # Loading the file would run the pickle's code, and needs the classes that it names.
        wrong = (
            "was written by torch.save: a whole module, or a state dict. Save a module as a program, with "
            "torch.jit.script(module).save(FILE), or save its state_dict()"
        )
    else:
        wrong = f"begins with {begin[:16]!r}; save it again, or name its framework with --framework"
    likely = " or ".join(form.expected for form in named)
    raise InvalidArgument(f"cannot tell how to load {str(path)!r}: it is named like {likely}, but {wrong}")


def _of_folder(folder: Path) -> Framework:
    for framework, fits in _FOLDERS.items():
        if fits(folder):
            return framework
    entries = sorted(folder.iterdir())
    if not entries:
        raise InvalidArgument(f"the model folder {str(folder)!r} is empty: {_FOLDERS_KNOWN}")
    there = ", ".join(entry.name for entry in entries[:_SHOWN])
    models = [str(entry) for entry in entries[:_SHOWN] if _is_recognised(entry)]
    advice = f"deploy {' or '.join(models)}, which is in it" if models else f"{_FOLDERS_KNOWN}; {_OTHERS_KNOWN}"
    raise InvalidArgument(f"cannot tell how to load the folder {str(folder)!r}, which holds {there}: {advice}")


def _is_recognised(path: Path) -> bool:
    """Whether a file is of a known format; a folder is recognised by the names in it alone."""
    if path.is_dir():
        return any(fits(path) for fits in _FOLDERS.values())
    return any(path.name.lower().endswith(form.endings) and form.fits(path) for form in _FILES)


def begin_of(path: Path, what: str = "model file") -> bytes:
    """Return the first bytes of a file. Raises InvalidArgument if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_BEGIN_BYTES)
    except OSError as error:
        expected = "; expected the path of a file or folder, or module:attribute" if what == "model file" else ""
        raise InvalidArgument(f"the {what} {str(path)!r} cannot be read: {error.strerror}{expected}") from error


def _is_prototxt(path: Path) -> bool:
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return False
    return "layer" in text


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


_FILES = (
    _FileForm("joblib", (".joblib",), lambda _: True, "joblib's"),
    _FileForm("pickle", (".pkl", ".pickle"), lambda _: True, "a pickle"),
    # A protobuf message whose first field, ir_version, is always present.
    _FileForm("onnx", (".onnx",), lambda path: begin_of(path).startswith(b"\x08"), "an ONNX model"),
    # JSON or UBJSON of an object whose first key is learner.
    _FileForm(
        "xgboost",
        (".json", ".ubj", ".bst", ".model"),
        lambda path: (begin := begin_of(path)).startswith(b"{") and b"learner" in begin,
        "XGBoost's save_model in JSON or UBJSON",
    ),
    _FileForm(
        "lightgbm",
        (".txt", ".lgb", ".model"),
        lambda path: begin_of(path).startswith(b"tree"),
        "LightGBM's save_model",
    ),
    _FileForm(
        "torchscript",
        (".pt", ".pth", ".ts"),
        lambda path: any("/code/" in name for name in _zip_names(path)),
        "a TorchScript program (a state dict needs its class: deploy module:Class with --data FILE "
        "--framework torch_state)",
    ),
    _FileForm("torch_export", (".pt2",), lambda path: bool(_zip_names(path)), "torch.export.save's"),
    _FileForm("keras", (".keras",), lambda path: "config.json" in _zip_names(path), "Keras 3's"),
    _FileForm("keras", (".h5", ".hdf5"), lambda path: begin_of(path).startswith(_HDF5), "Keras' HDF5"),
    _FileForm("caffe", (".prototxt", ".prototxt.txt"), _is_prototxt, "a Caffe network"),
)


def _count(folder: Path, *patterns: str) -> int:
    return sum(1 for pattern in patterns for _ in folder.glob(pattern))


# MLflow first, because its folders contain those of other frameworks.
_FOLDERS: dict[Framework, Callable[[Path], bool]] = {
    "mlflow": lambda folder: (folder / "MLmodel").is_file(),
    "tensorflow": lambda folder: (folder / "saved_model.pb").is_file(),
    "spark": lambda folder: any((folder / "metadata").glob("part-*")),
    "caffe": lambda folder: _count(folder, "*.prototxt", "*.prototxt.txt") == _count(folder, "*.caffemodel") == 1,
    "onnx": lambda folder: _count(folder, "*.onnx") == 1,
}

_FILES_KNOWN = (
    "expected a file of scikit-learn or others (.joblib, .pkl, .pickle), ONNX (.onnx), XGBoost (.json, .ubj), "
    "LightGBM (.txt), TorchScript (.pt), torch.export (.pt2) or Keras (.keras, .h5)"
)
_FOLDERS_KNOWN = (
    "expected a folder of MLflow, TensorFlow (saved_model.pb), Spark (metadata/), Caffe (one .prototxt and one "
    ".caffemodel) or ONNX (one .onnx)"
)
_OTHERS_KNOWN = (
    "for any other format write a class with __init__(self, model_data) and predict_batch(self, inputs), and deploy "
    "it as module:Class with --data"
)

# Files that users often try, and what to deploy instead.
_HINTS = {
    ".py": "a .py file is code: name its class or function as module:attribute, e.g. totals:Totals of totals.py",
    ".caffemodel": "deploy Caffe's .prototxt, with --data and this file, or the folder of both",
    ".pb": ".pb is TensorFlow's: deploy the SavedModel folder that holds it",
    ".tflite": ".tflite is TensorFlow Lite's: deploy the SavedModel that it was made from",
    ".safetensors": "a .safetensors file has only weights: deploy the class that reads it, as module:Class with --data",
    ".gguf": "a .gguf file has only weights: deploy the class that reads them, as module:Class with --data",
    ".cbm": ".cbm is CatBoost's: save the model as ONNX",
}


def _advice(path: Path) -> str:
    suffix = path.suffix.lower()
    return _HINTS.get(suffix) or (
        f"its ending is {suffix or 'none'}; {_FILES_KNOWN}; {_FOLDERS_KNOWN}; module:attribute; or with --language "
        f"binary a program that speaks the container protocol. For a file with another ending give --framework; "
        f"{_OTHERS_KNOWN}"
    )
