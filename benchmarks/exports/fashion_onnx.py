"""A network of one hidden layer that tells clothes apart, as ONNX: ``fashion_onnx.py FOLDER PICTURES_NPZ``."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler


def main(folder: Path, pictures: Path) -> None:
    data = np.load(pictures)
    inputs = data["inputs"].astype(np.float32)
    network = make_pipeline(MaxAbsScaler(), MLPClassifier((256,), max_iter=16, random_state=0))
    network.fit(inputs, data["labels"])
    # Debian's ONNX Runtime reads it, too.
    model = to_onnx(network, inputs[:1], options={"zipmap": False}, target_opset=17)
    (folder / "network.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
