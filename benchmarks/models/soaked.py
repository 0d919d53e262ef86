"""What is served during a soak: models that answer alike but for a factor, and one that answers what it is asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Soaked:
    """``model_data`` is a JSON file with the ``factor``; the rest of it is ballast, so that each version is another."""

    input_type = "float64[*]"

    def __init__(self, model_data: str) -> None:
        self._factor = json.loads(Path(model_data).read_text())["factor"]

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """Whether each row's sum is above the factor. ``inputs`` is (batch, features), or a list of rows."""
        return [int(np.sum(row) > self._factor) for row in inputs]


def echo(inputs: NDArray[np.float64]) -> Any:
    """``inputs`` as they are: large inputs have large answers."""
    return inputs
