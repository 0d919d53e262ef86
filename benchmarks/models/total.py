"""The cheapest model there is: what is left is the server's own cost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def total(inputs: NDArray[np.float64]) -> Any:
    """The sum of each row of ``inputs`` (batch, features)."""
    return inputs.sum(1)
