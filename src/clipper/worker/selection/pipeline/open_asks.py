"""Decides which asks of models are let in: none in a circle, none too deep, and not too many.

A model's replica waits while it asks, so models that ask each other in a circle would wait for each other until the
deadline. It does not matter for which queries they ask: if ``a`` waits for ``b``, and a batch of ``b`` for another
query asks ``a``, the one may be behind the other in both queues. So what counts is which models wait for which now.
"""

from collections import Counter
from collections.abc import Collection

from clipper.errors import Conflict, Overloaded
from clipper.model.protocol.asks import MAX_OPEN_ASKS

# Asks that wait for asks. Each holds a replica, and has a part of what the one before it had left of the deadline.
MAX_DEPTH = 4
# The rows and outputs that a worker holds for asks.
MAX_HELD_BYTES = 256 * 1024 * 1024


class OpenAsks:
    """The asks of a worker that are not answered."""

    def __init__(self) -> None:
        self._waits: Counter[tuple[str, str]] = Counter()
        self._replicas: Counter[object] = Counter()
        self.held_bytes = 0

    def check(self, replica: object, asker: str, asked: Collection[str], size_bytes: int) -> None:
        """Refuse an ask of a replica, of the model ``asker``, for an application that may ask the models ``asked``.

        Raises:
            Conflict: they wait for the asker already, or too many asks wait for each other.
            Overloaded: too many asks of the replica are open, or the worker holds too much for asks.
        """
        if self._replicas[replica] >= MAX_OPEN_ASKS:
            raise Overloaded(f"this replica waits for {MAX_OPEN_ASKS} asks already: expected no more")
        self.check_room(size_bytes)
        # Which model each waits for, on the way to the asker; and those that were found last.
        way = {asker: ""}
        latest = {asker}
        for _ in range(MAX_DEPTH):
            if (again := next((model for model in asked if model in latest), None)) is not None:
                names, model = [again], again
                while model := way[model]:
                    names.append(model)
                raise Conflict(f"models ask in a circle: {', which asks '.join([*names, again])}")
            found = {waits: for_ for waits, for_ in self._waits if for_ in latest}
            way = found | way
            latest = set(found)
            if not latest:
                return
        raise Conflict(f"{MAX_DEPTH} asks in a row wait for {asker} already: expected no more")

    def check_room(self, size_bytes: int) -> None:
        """Raise Overloaded if there is no room to hold so much more."""
        if self.held_bytes + size_bytes > MAX_HELD_BYTES:
            raise Overloaded(f"the worker holds {self.held_bytes} bytes for asks: expected at most {MAX_HELD_BYTES}")

    def begin(self, replica: object, asker: str, asked: Collection[str], size_bytes: int) -> None:
        self._count(replica, asker, asked, 1)
        self.held_bytes += size_bytes

    def end(self, replica: object, asker: str, asked: Collection[str], size_bytes: int) -> None:
        """Take back what ``begin`` counted. ``size_bytes``: what has been held for the ask in the end."""
        self._count(replica, asker, asked, -1)
        self.held_bytes -= size_bytes

    def _count(self, replica: object, asker: str, asked: Collection[str], by: int) -> None:
        self._replicas[replica] += by
        if not self._replicas[replica]:
            del self._replicas[replica]
        for model in asked:
            self._waits[asker, model] += by
            if not self._waits[asker, model]:
                del self._waits[asker, model]
