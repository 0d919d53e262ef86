"""A model that answers each row's sum."""

from typing import Any


def predict(inputs: Any) -> list[float]:
    return [float(row.sum()) for row in inputs]
