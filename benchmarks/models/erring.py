"""A model that is right for a share of the inputs, and takes a given time for each row."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Erring:
    """``model_data`` is a JSON file: ``row_s``, ``quality``, and ``place``, the number of an input that decides whether
    it is right, by chance. The right answer is the input's first number.
    """

    input_type = "float64[4]"

    def __init__(self, model_data: str) -> None:
        self._told = json.loads(Path(model_data).read_text())

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The first number of each row of ``inputs`` (batch, 4), or -1 where it errs."""
        time.sleep(len(inputs) * self._told["row_s"])
        return np.where(inputs[:, self._told["place"]] < self._told["quality"], inputs[:, 0], -1.0)
