"""How long a container's start may take: decides, and measures nothing.

On a machine that others keep busy, and with files that are not in memory yet, a framework takes several times its usual
time to load. What tells such a start from one that hangs is that it computes.
"""

from clipper.settings.version import MOST_START_TIMES

# What a container has computed is looked at after this time, or after a quarter of its start_timeout_s if that is less.
LOOK_S = 5.0
# The share of a look in which a container has computed, from which on it makes progress. A busy machine leaves it so
# much, and one that waits for something takes less.
LEAST_SHARE = 0.02


class StartTime:
    """The time of one start.

    Attributes:
        deadline_s: until when it need not compute.
        last_s: until when it may go on if it computes.
        is_extended: whether it has gone on after ``deadline_s``.
    """

    def __init__(self, now_s: float, timeout_s: float) -> None:
        self.deadline_s = now_s + timeout_s
        self.last_s = now_s + MOST_START_TIMES * timeout_s
        self.is_extended = False
        self._look_s = min(LOOK_S, timeout_s / 4)
        self._next_s = self.deadline_s - self._look_s
        self._computed_s: float | None = None

    def has_to_look(self, now_s: float) -> bool:
        """Whether ``is_over`` wants to know now what the container has computed."""
        return now_s >= self._next_s

    def is_over(self, now_s: float, computed_s: float | None) -> bool:
        """Whether the start has taken too long.

        Args:
            computed_s: the processor time of all processes of the container so far; None if it is not known.
        """
        if now_s < self._next_s:
            return False
        before_s, self._computed_s = self._computed_s, computed_s
        self._next_s = now_s + self._look_s
        if now_s < self.deadline_s:
            # A look that came late still has the next one at the deadline.
            self._next_s = min(self._next_s, self.deadline_s)
            return False
        if now_s >= self.last_s or before_s is None or computed_s is None:
            return True
        is_over = computed_s - before_s < LEAST_SHARE * self._look_s
        self.is_extended = self.is_extended or not is_over
        return is_over
