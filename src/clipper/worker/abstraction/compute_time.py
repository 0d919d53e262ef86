"""The time that a version takes to compute a row: measured from each batch that comes back, with forgetting."""

# The mean is over about the last fifty batches.
KEPT = 0.98


class ComputeTime:
    """The mean over rows: a row of a large batch counts as much as a row that is alone."""

    __slots__ = ("_batches", "_rows", "_seconds")

    def __init__(self) -> None:
        self._batches = 0
        self._rows = self._seconds = 0.0

    @property
    def row_ms(self) -> float | None:
        """The mean time of a row in milliseconds; None while no batch has come back."""
        return 1000.0 * self._seconds / self._rows if self._batches else None

    def record(self, rows: int, computed_s: float, service_s: float) -> None:
        """Learn from a batch of at least one row that came back.

        Args:
            computed_s: the model's time as its container reports it; 0 if the container reports none.
            service_s: the batch's time as this worker measured it, an upper bound of the model's time.
        """
        seconds = computed_s if 0 < computed_s < service_s else service_s
        self._batches += 1
        if self._batches <= 2:
            # The first batch often loads or compiles something: it counts only until the second comes back.
            self._rows, self._seconds = float(rows), seconds
        else:
            self._rows = self._rows * KEPT + rows
            self._seconds = self._seconds * KEPT + seconds
