"""Decides when to start again what has died. The caller gives all times, in seconds of one monotonic clock."""

from dataclasses import dataclass, replace

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0

# This many deaths in this time are a crash loop. Its cause will hardly go away by itself, so retry seldom.
CRASH_LOOP_DEATHS = 5
CRASH_LOOP_WINDOW_S = 60.0
CRASH_LOOP_DELAY_S = 30.0

# A process that stayed up this long has recovered: its next death counts as the first.
HEALTHY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """The deaths of one process that is started again and again.

    Attributes:
        deaths_s: times of its last deaths, oldest first, at most ``CRASH_LOOP_DEATHS``.
        streak: deaths since it was last healthy.
        crash_loop: whether it is in a crash loop. Only a healthy run ends one.
    """

    deaths_s: tuple[float, ...] = ()
    streak: int = 0
    crash_loop: bool = False

    def died(self, now_s: float, uptime_s: float) -> "History":
        """The history with one more death, ``uptime_s`` after it was ready (0 if it never was)."""
        before = History() if uptime_s >= HEALTHY_AFTER_S else self
        deaths = (*before.deaths_s, now_s)[-CRASH_LOOP_DEATHS:]
        quick = len(deaths) == CRASH_LOOP_DEATHS and now_s - deaths[0] <= CRASH_LOOP_WINDOW_S
        return replace(before, deaths_s=deaths, streak=before.streak + 1, crash_loop=before.crash_loop or quick)

    @property
    def restart_at_s(self) -> float:
        """The earliest time to start it again; minus infinity if it never died."""
        if not self.deaths_s:
            return float("-inf")
        doublings = min(self.streak - 1, 16)  # far past MAX_DELAY_S, and no overflow
        delay_s = CRASH_LOOP_DELAY_S if self.crash_loop else min(FIRST_DELAY_S * 2.0**doublings, MAX_DELAY_S)
        return self.deaths_s[-1] + delay_s


NO_DEATHS = History()
