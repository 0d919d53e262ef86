"""A request's body while it arrives."""

from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget


class Body:
    """Collects the bytes of a body at a time. They count against the budget until ``drop``.

    Attributes:
        max_bytes: the bound of the current body; the caller enforces it.
        size_bytes: the number of bytes so far.
    """

    __slots__ = ("_budget", "_data", "max_bytes", "size_bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._data: bytes | bytearray = b""
        self.max_bytes = limits.MAX_BODY_BYTES
        self.size_bytes = 0

    def add(self, chunk: bytes) -> None:
        if not self._data:
            self._data = chunk
        elif isinstance(self._data, bytearray):
            self._data += chunk
        else:
            self._data = bytearray(self._data) + chunk
        self.size_bytes += len(chunk)
        self._budget.held_bytes += len(chunk)

    def take(self) -> bytes | bytearray:
        """Return the body: a copy if it is short; a long body is the buffer itself, which reading overwrites."""
        return self._data if len(self._data) > SHORT_TEXT_BYTES else bytes(self._data)

    def drop(self) -> None:
        """Discard the body and release its share of the budget."""
        self._budget.held_bytes -= self.size_bytes
        self.size_bytes = 0
        self._data = b""
