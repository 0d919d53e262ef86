"""A model that is ten times slower for as long as a file exists."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_S = 0.2e-3
ROW_S = 20e-6
SLOWDOWN = 10


class Switched:
    """``model_data`` is a file that holds the path of the switch."""

    def __init__(self, model_data: str) -> None:
        self._switch = Path(Path(model_data).read_text().strip())

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The sum of each row of ``inputs`` (batch, features), late."""
        seconds = BATCH_S + ROW_S * len(inputs)
        time.sleep(seconds * SLOWDOWN if self._switch.exists() else seconds)
        return inputs.sum(1)
