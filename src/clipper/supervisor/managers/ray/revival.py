"""Decides when an actor starts again by itself what it runs: facts and times in, decisions out.

A supervisor that leads hears of an end at once, and ends the actor. So what has ended for a while, in an actor that is
still there, has nobody who would start another. All times are in seconds of one clock that never goes back.
"""

from clipper.supervisor.managers.reconcile.plan import NO_DEATHS

# What a busy supervisor takes to end the actor, many times over.
PATIENCE_S = 3.0


class Revival:
    """Decides when one actor restarts its process. ``is_over``: nothing is started any more."""

    def __init__(self, now_s: float) -> None:
        """``now_s``: when it was started first."""
        self.is_over = False
        self._history = NO_DEATHS
        self._started_s = now_s

    def ended(self, now_s: float) -> float | None:
        """It has ended, or could not be started again. Returns when to start it again; None for never. The pauses are
        those of ``History``: half a minute in a crash loop."""
        self._history = self._history.died(now_s, now_s - self._started_s)
        return None if self.is_over else max(now_s + PATIENCE_S, self._history.restart_at_s)

    def starts(self, now_s: float) -> None:
        """It is started again now."""
        self._started_s = now_s

    def end(self) -> None:
        """Somebody ends it on purpose. This is final."""
        self.is_over = True
