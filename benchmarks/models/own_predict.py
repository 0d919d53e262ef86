"""An estimator that answers through scikit-learn's own ``predict``: bare, its checks may be left out."""

from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray


class OwnPredict:
    """``model_data`` is a file of joblib's."""

    def __init__(self, model_data: str) -> None:
        self._estimator = joblib.load(model_data)
        self.input_type = f"float64[{self._estimator.n_features_in_}]"

    def predict_batch(self, inputs: NDArray[np.float64]) -> Any:
        """The label of each row of ``inputs`` (batch, features)."""
        return self._estimator.predict(inputs)
