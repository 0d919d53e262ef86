"""Blocks of rows that no query waits for: they are evaluated in pieces while replicas have nothing else to do.

A replica cannot be interrupted, so a query that comes while a piece is evaluated waits for its end. The rules here
bound that wait: see ``piece_rows`` and ``Blocks.give``.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from clipper.worker.abstraction.batching.background import QUIET_ARRIVALS, rows_alone
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.service_times import LEAST_S

# While queries come, a piece may take at most this multiple of the time of a single query, and at most this share of
# the SLO. A query that comes meanwhile waits about as long as behind another query. Shorter ones would be overhead.
BUSY_TIMES, BUSY_SHARE = 1.5, 0.05
# A piece may always take this multiple of the time of a single row. If most of a batch's time is fixed, fewer rows
# would not be quicker, and a job would need a batch for each row.
LEAST_TIMES = 1.25
# While no query is expected, a piece may take this share of the SLO, and two pieces are in flight: otherwise a replica
# would idle while the worker reads the answer to the first.
QUIET_SHARE, QUIET_PIECES = 0.25, 2
# The longest piece, whatever the SLO: other workers' queries may wait for it, too.
MOST_PIECE_S = 0.05
# The rows of a replica's first piece. The next one may have up to the square root of ``MOST_TIMES`` times as many.
FIRST_ROWS, MOST_TIMES = 8, 4.0
# The weight of the latest piece in the expected time of a piece.
LAST_WEIGHT = 0.3
# A worker holds this many blocks of a version, and this many bytes of them: enough for all replicas to have work.
MAX_BLOCKS, MAX_BYTES = 32, 64 * 1024 * 1024
# A piece that ended its replica, or failed as a whole, is tried again in this many parts. So few replicas die until the
# row that kills them is found.
PARTS = 8


class Block:
    """Rows that came together. ``done``: whether nobody waits for them any more."""

    def __init__(self, rows: int, size_bytes: int) -> None:
        self.rows, self.size_bytes = rows, size_bytes
        self.done = False
        # The rows from each start to each stop are still to be sent.
        self.unsent: deque[tuple[int, int]] = deque([(0, rows)])


class PieceSize:
    """How many rows a replica's next piece has, so that it takes its budget.

    The size follows the measured times directly. Nearly all pieces have one size, from which a time per row cannot be
    separated from a fixed time.

    Attributes:
        rows: the number of rows of the next piece; at least 1.
        took_s: the time that a piece of this size takes; 0 before the first one.
        alone_s: the time of a piece of one row; 0 until such a piece was answered.
        budget_s: the time that a piece may take.
    """

    def __init__(self) -> None:
        self.rows = float(FIRST_ROWS)
        self.took_s = self.alone_s = self.budget_s = 0.0

    def learn(self, rows: int, took_s: float) -> None:
        if rows == 1:
            self.alone_s += (took_s - self.alone_s) * (LAST_WEIGHT if self.alone_s else 1.0)
        else:
            self.alone_s = min(self.alone_s, took_s)  # a row by itself takes no longer
        if self.took_s and rows < int(self.rows) and took_s <= self.budget_s:
            return  # the rest of a block
        self.took_s += (took_s - self.took_s) * (LAST_WEIGHT if self.took_s else 1.0)
        times = min(max(self.budget_s / max(took_s, LEAST_S), 1 / MOST_TIMES), MOST_TIMES)
        self.rows = max(1.0, (self.rows if rows == int(self.rows) else rows) * times**0.5)


class Piece(NamedTuple):
    """The rows of a block from ``start`` to ``stop``. ``size`` learns from its time."""

    block: Block
    start: int
    stop: int
    size: PieceSize

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Blocks:
    """The blocks of a version, first come, first served. ``waiting``: those that have rows to send."""

    def __init__(self) -> None:
        self.waiting: deque[Block] = deque()
        self._held: dict[Block, None] = {}  # also those whose last pieces are in flight
        self._held_bytes = 0
        # By replica, and whether queries come.
        self._sizes: dict[str, tuple[PieceSize, PieceSize]] = {}

    def push(self, block: Block) -> bool:
        """Add a block. Return False if there is no room."""
        if len(self._held) >= MAX_BLOCKS or (self._held and self._held_bytes + block.size_bytes > MAX_BYTES):
            return False
        self._held[block] = None
        self._held_bytes += block.size_bytes
        self.waiting.append(block)
        return True

    def end(self, block: Block) -> None:
        """Forget a block: it was answered, or nobody waits for it any more."""
        block.done = True
        if block in self._held:
            del self._held[block]
            self._held_bytes -= block.size_bytes
        if block in self.waiting:
            self.waiting.remove(block)

    def clear(self) -> list[Block]:
        """Forget all blocks, also those whose last pieces are in flight, and return them."""
        blocks = list(self._held)
        for block in blocks:
            self.end(block)
        return blocks

    def give(
        self, replicas: Iterable[ReplicaState], per_s: float, slo_s: float
    ) -> Iterator[tuple[ReplicaState, Piece, float]]:
        """Yield pieces for replicas, each with its expected time. The caller puts each into ``in_flight`` at once.

        While queries come, one replica of several is left without pieces, so that a query finds it free.

        Args:
            per_s: how many queries come a second.
        """
        working = [replica for replica in replicas if not replica.is_draining]
        for replica in working:
            is_quiet = per_s * replica.times.mean_s(1) < QUIET_ARRIVALS
            while self.waiting and len(replica.in_flight) < (QUIET_PIECES if is_quiet else 1):
                free = sum(not other.in_flight for other in working)
                if any(batch.piece is None for batch in replica.in_flight.values()) or (
                    not is_quiet and free == 1 < len(working)
                ):
                    break
                size = self._sizes.setdefault(replica.id, (PieceSize(), PieceSize()))[is_quiet]
                most_s = budget_s(replica, slo_s, is_quiet=is_quiet)
                size.budget_s = max(most_s, LEAST_TIMES * size.alone_s)
                block = self.waiting[0]
                rows = piece_rows(size, most_s, replica, block.size_bytes / block.rows, per_s, slo_s)
                if not rows:
                    break
                yield replica, self._take(rows, size), size.took_s or size.budget_s

    def _take(self, most_rows: int, size: PieceSize) -> Piece:
        block = self.waiting[0]
        start, stop = block.unsent.popleft()
        if start + most_rows < stop:
            block.unsent.appendleft((start + most_rows, stop))
            stop = start + most_rows
        if not block.unsent:
            self.waiting.popleft()
        return Piece(block, start, stop, size)

    def forget_replica(self, replica_id: str) -> None:
        self._sizes.pop(replica_id, None)

    def try_again(self, piece: Piece, *, has_begun: bool = True) -> bool:
        """Queue a piece again, in parts. Return False if it is a single row that may have begun: it cannot be divided.

        ``has_begun``: whether the replica may have evaluated it. It has not while it waits behind another batch.
        """
        block = piece.block
        if piece.rows == 1 and has_begun:
            return False
        if not block.done:
            step = max(1, -(-piece.rows // PARTS))
            block.unsent.extendleft(
                (start, min(start + step, piece.stop)) for start in reversed(range(piece.start, piece.stop, step))
            )
            if block not in self.waiting:
                self.waiting.appendleft(block)
        return True


def budget_s(replica: ReplicaState, slo_s: float, *, is_quiet: bool) -> float:
    """Return how long a piece may take on a replica. ``is_quiet``: no query is expected meanwhile."""
    most_s = QUIET_SHARE * slo_s if is_quiet else min(BUSY_SHARE * slo_s, BUSY_TIMES * replica.times.one_row_s)
    return min(most_s, MOST_PIECE_S)


def piece_rows(
    size: PieceSize, most_s: float, replica: ReplicaState, row_bytes: float, per_s: float, slo_s: float
) -> int:
    """Return how many rows the next piece for a replica may have; 0 if even one could make a query late.

    If even one row takes longer than ``most_s``, the rule for other background work holds: the piece is sent if a query
    that comes meanwhile can still be in time.
    """
    rows = min(int(size.rows), replica.max_batch)
    if size.took_s == 0:
        return min(rows, max(1, rows_alone(replica, row_bytes, per_s, slo_s)))
    is_long = size.took_s > most_s and (rows == 1 or size.alone_s > most_s / LEAST_TIMES)
    return 0 if is_long and not rows_alone(replica, row_bytes, per_s, slo_s) else rows
