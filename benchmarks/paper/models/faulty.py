"""A classifier that returns noise for as long as a file exists."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray


class Faulty:
    """``model_data`` is a folder: ``model.joblib``, the classifier; ``switch``, which holds the path of the file."""

    def __init__(self, model_data: str) -> None:
        folder = Path(model_data)
        self._model = joblib.load(folder / "model.joblib")
        self._switch = Path((folder / "switch").read_text())
        self._random = np.random.default_rng(0)

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """A label for each row of ``inputs`` (batch, features); while the file exists, any of the labels."""
        if self._switch.exists():
            return self._random.choice(self._model.classes_, len(inputs))
        return self._model.predict(inputs)
