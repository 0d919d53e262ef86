"""A classifier that sometimes takes long: after each batch it waits for a time of a heavy tail."""

import time
from random import Random
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

# Of a Pareto law, cut off: one batch in 23 waits over 17 ms, one in 160 over 0.1 s.
LEAST_S, EXPONENT, MOST_S = 1e-3, 1.1, 0.2


class Straggling:
    """``model_data`` is a file of joblib's."""

    def __init__(self, model_data: str) -> None:
        self._estimator = joblib.load(model_data)
        self.input_type = f"float64[{self._estimator.n_features_in_}]"
        self._random = Random(model_data)

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The label of each row of ``inputs`` (batch, features), some of them late."""
        time.sleep(min(LEAST_S * self._random.paretovariate(EXPONENT), MOST_S))
        return self._estimator.predict(inputs)
