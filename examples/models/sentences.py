"""Sentences to vectors: near ones say alike things. A class of one's own around a network of another library.

In a folder with this file, and a folder ``minilm`` that sentence-transformers has saved:

    clipper deploy sentences sentences:Sentences --data minilm --requirements requirements.txt

where ``requirements.txt`` has ``sentence-transformers``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer


class Sentences:
    input_type = "string"

    def __init__(self, model_data: str | None) -> None:
        if model_data is None:
            raise ValueError("deploy it with --data, the folder of a network that sentence-transformers has saved")
        self._network = SentenceTransformer(model_data, device="cpu")

    def predict_batch(self, inputs: Sequence[str]) -> NDArray[np.float32]:
        """Answer a batch: a row of numbers, of length 1 in all, for each text."""
        vectors: NDArray[np.float32] = self._network.encode(list(inputs), normalize_embeddings=True)
        return vectors
