"""A request's body while it arrives."""

from clipper.frontend import limits
from clipper.frontend.budget import Budget
from clipper.inputs.long_text import SHORT_TEXT_BYTES


class Body:
    """The bytes of one body after another; they count for the budget until they are taken or dropped.

    Attributes:
        max_bytes: how long it may become.
        size_bytes: how long it is.
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
        """The whole body. A short one is copied; a long one is read where it is, and is overwritten by what is read."""
        return self._data if len(self._data) > SHORT_TEXT_BYTES else bytes(self._data)

    def drop(self) -> None:
        """There is none any more."""
        self._budget.held_bytes -= self.size_bytes
        self.size_bytes = 0
        self._data = b""
