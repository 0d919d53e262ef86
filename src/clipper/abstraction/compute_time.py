"""What a version takes to compute one row: measured from each batch that comes back, forgetting what is old."""

# The mean is that of the last fifty batches or so.
KEPT = 0.98


class ComputeTime:
    """The mean over rows, so that a row of a large batch counts as much as one that is alone.

    Attributes:
        row_ms: milliseconds; None while no batch has come back.
    """

    __slots__ = ("_batches", "_rows", "_seconds", "row_ms")

    def __init__(self) -> None:
        self._batches = 0
        self._rows = self._seconds = 0.0
        self.row_ms: float | None = None

    def record(self, rows: int, computed_s: float, service_s: float) -> None:
        """A batch of at least one row came back.

        Args:
            computed_s: what its container says that the model took; 0 where it does not say.
            service_s: what the batch took as seen from here, which its model cannot have exceeded.
        """
        seconds = min(computed_s or service_s, service_s)
        self._batches += 1
        if self._batches <= 2:
            # The first batch often loads or compiles something: it counts only until there is a second.
            self._rows, self._seconds = float(rows), seconds
        else:
            self._rows = self._rows * KEPT + rows
            self._seconds = self._seconds * KEPT + seconds
        self.row_ms = 1000.0 * self._seconds / self._rows
