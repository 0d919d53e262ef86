"""Finds out which packages a model file or folder needs, without its framework and without running anything.

Each need is a requirement, with the version that wrote the file if the file states it. ``python==3.12`` is a
requirement on Python itself. A server whose own Python meets all needs uses that Python; any other server builds an
environment.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from clipper.client.packaging.artifact import Member
from clipper.client.packaging.frameworks import recognise
from clipper.client.packaging.pickles import PickleContents, look_into, xgboost_version
from clipper.errors import InvalidArgument
from clipper.values.types import Framework

# Maps a module's name to its package. Packages without support for GPUs are a tenth as large.
_DISTRIBUTIONS = {
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "hmmlearn": "hmmlearn",
    "imblearn": "imbalanced-learn",
    "statsmodels": "statsmodels",
    "pandas": "pandas",
    "scipy": "scipy",
    "torch": "torch",
    "keras": "keras",
    "tensorflow": "tensorflow-cpu",
}

# At most this many files of a data folder are examined. A model seldom has more pickles, and its other data may be
# thousands of pictures.
_MOST_FILES = 200
# The size of the end of XGBoost's files that contains the version.
_TAIL_BYTES = 4096
_XGBOOST_VERSION = re.compile(rb'"version":\s*\[(\d+),\s*(\d+),\s*(\d+)\]')
# The version without its last number, which does not matter to a pickle.
_MLFLOW_PYTHON = re.compile(r"^python:\s*['\"]?(\d+\.\d+)", re.MULTILINE)
_RELEASE = re.compile(r"\d+(\.\d+)+(rc\d+|\.post\d+)?")
# The first release of xgboost-cpu. A later xgboost reads files of an earlier one.
_FIRST_XGBOOST_CPU = (2, 1, 0)
# Earlier releases of scikit-learn were built for numpy 1, and did not declare that they need it.
_FIRST_WITH_NUMPY_2 = (1, 4, 2)


def needs_of(framework: Framework, path: Path) -> tuple[str, ...]:
    """Return the needs besides numpy, sorted, of a model of ``framework`` at ``path``, a file or folder."""
    return tuple(sorted(set(_READERS[framework](path))))


def needs_of_data(path: Path) -> tuple[str, ...]:
    """Return the needs, sorted, of the pickle and joblib files that code gets as its data, a file or a folder."""
    needs: set[str] = set()
    for file in islice(_files(path), _MOST_FILES):
        with suppress(InvalidArgument):
            framework = recognise(file)
            needs.update(needs_of(framework, file) if framework in ("pickle", "joblib") else ())
    return tuple(sorted(needs))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    # Sorted by name, so that all starts examine the same files.
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def needs_of_object(members: Iterable[Member]) -> tuple[str, ...]:
    """Return the needs of an object, from the members that it was pickled to."""
    pickles = (member.source for member in members if isinstance(member.source, bytes))
    return tuple(sorted({need for pickle in pickles for need in _pickled(look_into(pickle))}))


def _pickle(path: Path) -> Iterator[str]:
    return _pickled(look_into(path))


def _joblib(path: Path) -> Iterator[str]:
    yield "joblib"
    yield from _pickle(path)


def _pickled(found: PickleContents) -> Iterator[str]:
    for module in found.modules & _DISTRIBUTIONS.keys():
        yield _DISTRIBUTIONS[module]
    # XGBoost's estimators are scikit-learn's, but XGBoost does not require it.
    if found.modules & {"sklearn", "xgboost"}:
        yield from _scikit_learn(found.sklearn_version)
    if "xgboost" in found.modules:
        yield _xgboost_cpu(found.xgboost_version)


def _scikit_learn(version: str | None) -> Iterator[str]:
    if version is None or not _RELEASE.fullmatch(version):
        yield "scikit-learn"
        return
    yield f"scikit-learn=={version}"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < _FIRST_WITH_NUMPY_2:
        yield "numpy<2"


def _xgboost(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read()
    found = _XGBOOST_VERSION.search(tail)
    yield _xgboost_cpu(b".".join(found.groups()).decode() if found else xgboost_version(tail))


def _xgboost_cpu(version: str | None) -> str:
    is_there = version is not None and tuple(map(int, version.split("."))) >= _FIRST_XGBOOST_CPU
    return f"xgboost-cpu=={version}" if is_there else "xgboost-cpu"


def _keras(path: Path) -> Iterator[str]:
    yield "tensorflow-cpu"
    version = None
    # An HDF5 file is not a zip, and its version cannot be read without its library.
    with suppress(OSError, zipfile.BadZipFile, KeyError, ValueError), zipfile.ZipFile(path) as archive:
        version = json.loads(archive.read("metadata.json")).get("keras_version")
    yield f"keras=={version}" if version and _RELEASE.fullmatch(version) else "keras"


def _spark(folder: Path) -> Iterator[str]:
    version = None
    with suppress(OSError, ValueError, StopIteration):
        metadata = next((folder / "metadata").glob("part-*"))
        version = json.loads(metadata.read_text()).get("sparkVersion")
    yield f"pyspark=={version}" if version and _RELEASE.fullmatch(version) else "pyspark"


def _always(*needs: str) -> Callable[[Path], Iterator[str]]:
    return lambda _: iter(needs)


def _mlflow(folder: Path) -> Iterator[str]:
    """Read two files of the folder that list the packages of its origin. Clipper passes rows as pandas frames."""
    yield "pandas"
    with suppress(OSError, ValueError):
        lines = (line.strip() for line in (folder / "requirements.txt").read_text().splitlines())
        yield from (line for line in lines if line and not line.startswith(("#", "-")))
    with suppress(OSError, ValueError):
        if found := _MLFLOW_PYTHON.search((folder / "python_env.yaml").read_text()):
            yield f"python=={found[1]}"


_READERS: dict[Framework, Callable[[Path], Iterator[str]]] = {
    "pickle": _pickle,
    "joblib": _joblib,
    "onnx": _always("onnxruntime"),
    "xgboost": _xgboost,
    "lightgbm": _always("lightgbm"),
    "torchscript": _always("torch"),
    "torch_export": _always("torch"),
    "torch_state": _always("torch"),
    "tensorflow": _always("tensorflow-cpu"),
    "keras": _keras,
    "spark": _spark,
    # Release 5 of OpenCV cannot read Caffe's files.
    "caffe": _always("opencv-python-headless<5"),
    "mlflow": _mlflow,
}
