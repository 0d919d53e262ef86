"""A model that is right for a share of the inputs, and takes a given time for each row."""

import fcntl
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Erring:
    """``model_data`` is a JSON file: ``row_s``, ``quality``, and ``place``, the number of an input that decides whether
    it is right, by chance. The right answer is the input's first number. ``device`` is a file that stands for an
    accelerator, which computes for one model after another; empty for a model with one of its own.
    """

    input_type = "float64[4]"

    def __init__(self, model_data: str) -> None:
        self._told = json.loads(Path(model_data).read_text())

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The first number of each row of ``inputs`` (batch, 4), or -1 where it errs."""
        device = self._told["device"]
        with Path(device).open("w") if device else nullcontext() as held:
            if held is not None:
                fcntl.flock(held, fcntl.LOCK_EX)
            time.sleep(len(inputs) * self._told["row_s"])
        return np.where(inputs[:, self._told["place"]] < self._told["quality"], inputs[:, 0], -1.0)
