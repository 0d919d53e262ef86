"""A model whose batches and rows take as long as they are told to, and some rows longer."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Slept:
    """``model_data`` is a JSON file: ``batch_s`` of each batch, and of each row ``row_s``, or ``slow_row_s`` where its
    last number, which is random and below 1, is below ``slow_share``.
    """

    input_type = "float64[4]"

    def __init__(self, model_data: str) -> None:
        self._times = json.loads(Path(model_data).read_text())

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The sum of each row of ``inputs`` (batch, 4), late."""
        times = self._times
        slow = int((inputs[:, -1] < times["slow_share"]).sum())
        rows_s = (len(inputs) - slow) * times["row_s"] + slow * times["slow_row_s"]
        time.sleep(times["batch_s"] + rows_s)
        return inputs.sum(1)
