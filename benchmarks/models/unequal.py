"""A model of which one replica is five times slower than the others: the first that starts."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_S = 0.5e-3
ROW_S = 0.5e-3
SLOWER = 5


class Unequal:
    """``model_data`` is a file that holds the path of a mark, which the slow replica makes."""

    def __init__(self, model_data: str) -> None:
        mark = Path(Path(model_data).read_text().strip())
        try:
            mark.touch(exist_ok=False)
            self._times = SLOWER
        except FileExistsError:
            self._times = 1

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The sum of each row of ``inputs`` (batch, features), late."""
        time.sleep((BATCH_S + ROW_S * len(inputs)) * self._times)
        return inputs.sum(1)
