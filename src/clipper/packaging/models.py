"""From a model file, a Python object, or ``module:attribute`` to an artifact."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clipper.errors import InvalidArgument
from clipper.packaging.artifact import Artifact, Contents, Loader, Member, pack
from clipper.packaging.code import find_code
from clipper.packaging.objects import OBJECT_NAME, object_members
from clipper.packaging.program import program_member

# Python: Clipper's own runtime loads the model. Binary: the model is a program that speaks the container protocol.
Language = Literal["python", "binary"]

# The container runtime's own list; a test keeps the two alike.
SUPPORTED_SUFFIXES = (".joblib", ".pkl", ".pickle")

# What users try first, with what to do instead.
_OTHER_FORMATS = {
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".h5": "Keras",
    ".keras": "Keras",
    ".onnx": "ONNX",
    ".pb": "TensorFlow",
    ".tflite": "TensorFlow Lite",
    ".safetensors": "safetensors",
    ".gguf": "GGUF",
    ".bst": "XGBoost",
    ".ubj": "XGBoost",
    ".cbm": "CatBoost",
}

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def package(
    model: object, *, data: Path | str | None = None, folder: Path | None = None, language: Language = "python"
) -> Artifact:
    """Pack a model. The caller closes the artifact (``with``), which removes its file.

    Args:
        model: the path of a model file (``str`` or ``Path``), ``"module:attribute"``, or any other Python object:
            a fitted estimator, a function over a batch, an object with ``predict_batch``.
        data: a file or folder that a ``module:Class`` gets as ``model_data``, and a program as ``--data``.
        folder: where the code of ``module:attribute`` is; the current folder if None.
        language: ``binary``: ``model`` is the path of a program, an executable or a jar.

    Raises:
        InvalidArgument: the model cannot be read, is empty or of an unknown format, or its code is not there.
        TooLarge: it is over a bound.
    """
    if language == "binary":
        return pack(_program_contents(model, data))
    if isinstance(model, str) and _TARGET.fullmatch(model):
        return pack(_import_contents(model, data, folder or Path.cwd()))
    if data is not None:
        raise InvalidArgument("data goes with module:attribute and programs only: a model file or object holds its own")
    if isinstance(model, (str, Path)):
        return pack(_file_contents(Path(model)))
    return pack(Contents(object_members(model), "file", OBJECT_NAME))


def package_code(targets: Sequence[str], folder: Path | None = None) -> Artifact | None:
    """Pack the code of an application's own policy and loss, each ``module:attribute``. The caller closes the artifact.

    Returns None if the folder, the current one if None is given, has no Python files: then all of it is installed.

    Raises:
        InvalidArgument: a target is not of that form, or its code is not there.
        TooLarge: the folder has too many Python files.
    """
    folder = folder or Path.cwd()
    for target in targets:
        if not _TARGET.fullmatch(target):
            raise InvalidArgument(f"{target!r} is not module:attribute, such as policies:Cautious")
    members: tuple[Member, ...] = ()
    for target in targets:
        # The whole folder each time; what differs is what is looked for in it.
        members = find_code(target, folder)
    return pack(Contents(members, "import", targets[0])) if members else None


def _program_contents(model: object, data: Path | str | None) -> Contents:
    if not isinstance(model, (str, Path)):
        raise InvalidArgument(f"model is a {type(model).__name__}: expected the path of a program, for language binary")
    program = program_member(Path(model))
    return _with_data((program,), "binary", program.name, data)


def _with_data(members: tuple[Member, ...], loader: Loader, target: str, data: Path | str | None) -> Contents:
    if data is None:
        return Contents(members, loader, target)
    path = Path(data)
    return Contents(members + _data_members(path), loader, target, f"data/{_data_name(path)}")


def _file_contents(path: Path) -> Contents:
    if path.suffix not in SUPPORTED_SUFFIXES:
        raise InvalidArgument(_format_cause(path))
    _check_readable(path)
    return Contents((Member(path.name, path),), "file", path.name)


def _format_cause(path: Path) -> str:
    suffix = path.suffix.lower()
    known = (
        f"{suffix} is {_OTHER_FORMATS[suffix]}'s" if suffix in _OTHER_FORMATS else f"its ending is {suffix or 'none'}"
    )
    supported = ", ".join(SUPPORTED_SUFFIXES)
    return (
        f"cannot tell how to load {str(path)!r}: {known}; expected a file ending in {supported}, or module:attribute, "
        "or with --language binary a program that speaks the container protocol. "
        "For any other format write a class with __init__(self, model_data) and predict_batch(self, inputs), "
        "and deploy it as module:Class with --data"
    )


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise InvalidArgument(f"cannot read the model file {str(path)!r}: {error.strerror}") from error
    if is_empty:
        raise InvalidArgument(f"the model file {str(path)!r} is empty")


def _import_contents(target: str, data: Path | str | None, folder: Path) -> Contents:
    return _with_data(find_code(target, folder), "import", target, data)


def _data_members(path: Path) -> tuple[Member, ...]:
    name = f"data/{_data_name(path)}"
    if not path.is_dir():
        _check_data(path)
        return (Member(name, path),)
    files = [file for file in path.rglob("*") if file.is_file()]
    if not files:
        raise InvalidArgument(f"the data folder {str(path)!r} has no files")
    return tuple(Member(f"{name}/{file.relative_to(path).as_posix()}", file) for file in files)


def _check_data(path: Path) -> None:
    if not path.is_file():
        raise InvalidArgument(f"no data at {str(path)!r}: expected a file or folder")


def _data_name(path: Path) -> str:
    return path.resolve().name
