"""Caffe: a ``.prototxt`` and a ``.caffemodel``, read and run by OpenCV."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource, thread_count
from clipper.model.frameworks.tensors import Answer
from clipper.model.model import Array, Inputs
from clipper.values.types import DType, InputType

LIBRARY = f"opencv {cv2.__version__}"

# Layers whose outputs have any number of rows; each row begins with the index of its image.
DETECTIONS = "DetectionOutput"


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the net. Raises ContainerFailed if OpenCV does not read Caffe's files any more, or a file is missing."""
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ContainerFailed(f"OpenCV {cv2.__version__} does not read Caffe's files: install opencv-python-headless<5")
    cv2.setNumThreads(thread_count())
    prototxt, weights = _files(source)
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    names = list(net.getUnconnectedOutLayersNames())
    answer = Answer.of(source, names)
    detecting = {name for name in names if net.getLayer(name).type == DETECTIONS}

    def predict_batch(inputs: Inputs) -> Any:
        net.setInput(np.asarray(inputs, np.float32))
        outputs = dict(zip(names, net.forward(names)))
        found = {name: _by_image(outputs[name], len(inputs)) for name in detecting}
        return answer.rows(outputs | found)

    return FrameworkModel(predict_batch, _input_type(prototxt.read_text()), LIBRARY)


def _files(source: FrameworkSource) -> tuple[Path, Path]:
    if source.data is not None:
        return source.path, source.data
    return _only(source.path, ".prototxt", ".prototxt.txt"), _only(source.path, ".caffemodel")


def _only(folder: Path, *endings: str) -> Path:
    found = [path for path in folder.iterdir() if path.name.endswith(endings)]
    if len(found) != 1:
        raise ContainerFailed(f"the folder has {len(found)} files that end in {endings[0]}: expected one")
    return found[0]


def _by_image(detections: Array, images: int) -> Any:
    """Return each image's detections: class, confidence and the box's corners, which are shares of its size."""
    rows = detections.reshape(-1, detections.shape[-1])
    # OpenCV returns rows of zeros if nothing was found.
    rows = rows[rows[:, 2] > 0]
    return [rows[rows[:, 0] == image, 1:].tolist() for image in range(images)]


# The batch's dimension comes first. Older files have one line for each dimension, newer ones a block.
_BLOCK = re.compile(r"\b(?:input_shape|shape)\s*:?\s*\{([^}]*)\}")
_DIMENSION = re.compile(r"\b(?:input_)?dim\s*:\s*(\d+)")


def _input_type(prototxt: str) -> InputType | None:
    """Return the input type that a net declares; None if it declares none."""
    text = re.sub(r"#.*", "", prototxt)
    block = _BLOCK.search(text)
    sizes = [int(size) for size in _DIMENSION.findall(block[1] if block else text)]
    return InputType(DType.FLOAT32, tuple(sizes[1:4])) if len(sizes) > 1 else None
