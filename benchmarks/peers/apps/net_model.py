"""A network as TorchScript, and pictures that it is asked: ``net_model.py FOLDER NETWORK PICTURES_NPZ``."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

# Of as many pictures those are asked whose best two scores are so far apart: on another device they differ a little.
LOOKED_AT, LEAST_LEAD = 4096, 0.1
ROWS = 2048


class Net:
    """Computes on a GPU, if this process sees one that PyTorch can use."""

    def __init__(self, path):
        torch.set_num_threads(1)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = torch.jit.load(path, map_location=self.device).eval()

    def scores(self, rows):
        given = torch.from_numpy(np.asarray(rows, np.float32)).to(self.device)
        with torch.inference_mode():
            return self.network(given).numpy(force=True)

    def predict(self, rows):
        return self.scores(rows).argmax(axis=1)


def main(folder, network, pictures):
    inputs = np.load(pictures)["inputs"][:LOOKED_AT]
    scores = Net(network).scores(inputs)
    second, first = np.sort(scores, axis=1)[:, -2:].T
    asked = np.flatnonzero(first - second > LEAST_LEAD)[:ROWS]
    net = {"rows": inputs[asked].tolist(), "answers": scores[asked].argmax(axis=1).tolist()}
    (folder / "rows.json").write_text(json.dumps({"net": net}))
    shutil.copy(network, folder / "net.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
