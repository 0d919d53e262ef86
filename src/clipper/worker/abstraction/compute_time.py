"""What a version takes to compute one row: measured from each batch that comes back, forgetting what is old."""

# The mean is that of the last fifty batches or so.
KEPT = 0.98


class ComputeTime:
    """The mean over rows, so that a row of a large batch counts as much as one that is alone."""

    __slots__ = ("_batches", "_rows", "_seconds")

    def __init__(self) -> None:
        self._batches = 0
        self._rows = self._seconds = 0.0

    @property
    def row_ms(self) -> float | None:
        """Milliseconds; None while no batch has come back."""
        return 1000.0 * self._seconds / self._rows if self._batches else None

    def record(self, rows: int, computed_s: float, service_s: float) -> None:
        """A batch of at least one row came back.

        Args:
            computed_s: what its container says that the model took; 0 where it does not say.
            service_s: what the batch took as seen from here, which its model cannot have exceeded.
        """
        seconds = computed_s if 0 < computed_s < service_s else service_s
        self._batches += 1
        if self._batches <= 2:
            # The first batch often loads or compiles something: it counts only until there is a second.
            self._rows, self._seconds = float(rows), seconds
        else:
            self._rows = self._rows * KEPT + rows
            self._seconds = self._seconds * KEPT + seconds
