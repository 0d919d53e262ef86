"""The cheapest model of records: what is left is the server's own cost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first(columns: dict[str, NDArray[np.float64]]) -> Any:
    """The first field of each record."""
    return columns["n0"]
