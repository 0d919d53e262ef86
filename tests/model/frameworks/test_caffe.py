"""OpenCV's face detector on a photograph, against OpenCV itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.real_models import exported
from tests.model.runtime.framework_desk import Desk, Refused, desk, near, sample

pytestmark = pytest.mark.long

PHOTO = sample("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


@pytest.fixture(scope="module")
def detector() -> Path:
    return exported("face_detector", "caffe", PHOTO)


@pytest.fixture(scope="module")
def caffe() -> Iterator[Desk]:
    with desk("caffe") as process:
        yield process


def test_faces_are_those_that_opencv_finds(caffe: Desk, detector: Path) -> None:
    model = caffe.load(detector / "net", "caffe")
    assert (model.input_type, model.max_batch) == ("float32[3,300,300]", None)
    assert "opencv 4." in model.runtime
    inputs, answers = np.load(detector / "inputs.npy"), np.load(detector / "answers.npy")
    # The first is the photo: one face, with all but certainty, in its upper half.
    [face, mirrored, _nothing] = [image[0] for image in model.predict(inputs)]
    assert face[1] > 0.99 and face[5] < 0.6
    assert abs(face[2] - (1 - mirrored[4])) < 0.02
    for found, answer in zip(model.predict(inputs), answers):
        assert near(found, answer[: len(found), 1:])
        assert all(answer[len(found) :, 2] == 0)


def test_a_batch_answers_as_its_images_do_alone(caffe: Desk, detector: Path) -> None:
    model = caffe.load(detector / "net", "caffe")
    inputs = np.load(detector / "inputs.npy")
    together = model.predict(inputs)
    for image, found in zip(inputs, together):
        [alone] = model.predict(image[np.newaxis])
        assert near(alone, found)


def test_two_files_are_as_good_as_a_folder(caffe: Desk, detector: Path) -> None:
    model = caffe.load(detector / "net" / "res10.prototxt", "caffe", data="res10.caffemodel")
    assert model.input_type == "float32[3,300,300]"


def test_a_network_may_be_named_as_a_text(caffe: Desk, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "deploy.prototxt.txt").symlink_to(detector / "net" / "res10.prototxt")
    (tmp_path / "res10.caffemodel").symlink_to(detector / "net" / "res10.caffemodel")
    assert caffe.load(tmp_path, "caffe").input_type == "float32[3,300,300]"


def test_an_output_by_its_name(caffe: Desk, detector: Path) -> None:
    inputs = np.load(detector / "inputs.npy")[:1]
    [found] = caffe.load(detector / "net", "caffe", output="detection_out").predict(inputs)
    assert found[0][1] > 0.99
    with pytest.raises(Refused, match="ContainerFailed: net has no output faces: it has detection_out"):
        caffe.load(detector / "net", "caffe", output="faces")


def test_a_network_that_scores_is_asked_for_labels(caffe: Desk, tmp_path: Path) -> None:
    (tmp_path / "softmax.prototxt").write_text(SOFTMAX)
    (tmp_path / "no_weights.caffemodel").write_bytes(b"\n\x04none")
    scores = np.array([[0.1, 0.7, 0.2], [3, 2, 1]], np.float32)
    path = tmp_path / "softmax.prototxt"
    model = caffe.load(path, "caffe", data="no_weights.caffemodel")
    assert model.input_type == "float32[3]"
    assert near(model.predict(scores), np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    assert caffe.load(path, "caffe", data="no_weights.caffemodel", output="labels").predict(scores) == [1, 0]


SOFTMAX = """
# dim: 9
input: "data"
input_shape { dim: 1 dim: 3 }
layer { name: "prob" type: "Softmax" bottom: "data" top: "prob" softmax_param { axis: 1 } }
"""


def test_a_folder_with_another_network_besides(caffe: Desk, tmp_path: Path) -> None:
    for name in ("a.prototxt", "b.prototxt", "a.caffemodel"):
        (tmp_path / "net").mkdir(exist_ok=True)
        (tmp_path / "net" / name).touch()
    with pytest.raises(Refused, match=r"the folder has 2 files that end in \.prototxt: expected one"):
        caffe.load(tmp_path / "net", "caffe")


def test_a_damaged_file_is_told_in_one_line(caffe: Desk, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "res10.prototxt").write_text((detector / "net" / "res10.prototxt").read_text())
    (tmp_path / "res10.caffemodel").write_bytes(b"not a network")
    with pytest.raises(Refused, match=r"ContainerFailed: caffe model res10\.prototxt cannot be loaded") as refused:
        caffe.load(tmp_path / "res10.prototxt", "caffe", data="res10.caffemodel")
    assert "\n" not in str(refused.value)
