"""A network of one hidden layer that reads digits, as ONNX: ``onnx_digits.py FOLDER DIGITS_CSV_GZ``."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier

TRAINED_ON = 1500


def main(folder: Path, digits: Path) -> None:
    table = np.loadtxt(digits, delimiter=",", dtype=np.float32)
    images, labels = table[:TRAINED_ON, :64], table[:TRAINED_ON, 64].astype(np.int64)
    network = MLPClassifier((512,), max_iter=30, random_state=0).fit(images, labels)
    model = to_onnx(network, images[:1], options={"zipmap": False})
    (folder / "network.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
