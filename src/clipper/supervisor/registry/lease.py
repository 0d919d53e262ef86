"""The lease of a supervisor, from its holder's view: answers and times in, decisions out.

The registry's storage grants the lease for ``duration_s`` by its own clock, from when a request comes. The holder
counts by its own clock from *before* it asked, and stops ``margin_s`` earlier. So, unless the clocks drift apart by
more than that within a lease, the holder has stopped before the storage may give the lease to another supervisor,
however late answers come. All times are of a clock of the holder's machine that never goes back, and that also counts
while the machine sleeps.

The registry itself depends on no clock: it refuses changes of an *epoch* that is not the latest, and each grant of the
lease begins a new one.
"""

from dataclasses import dataclass

# Another supervisor can take over once the storage has not heard from the holder for this long. Together with its
# start, that should take less than 10 s.
DURATION_S = 5.0
# Several renewals may fail before the holder has to stop.
RENEW_EVERY_S = 1.0
RETRY_EVERY_S = 0.5
# The margin covers the drift of clocks, many times over. It need not cover a crash of the storage, which has everything
# that it has confirmed on its disk.
MARGIN_S = 1.0


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The times of a lease.

    Attributes:
        duration_s: the time from a request to the end of the lease that it is granted.
        retry_every_s: the wait after a renewal that failed.
        margin_s: how much earlier than ``duration_s`` the holder stops.
    """

    duration_s: float = DURATION_S
    renew_every_s: float = RENEW_EVERY_S
    retry_every_s: float = RETRY_EVERY_S
    margin_s: float = MARGIN_S


class Lease:
    """The lease of an ``epoch``; every later grant has a higher epoch.

    Attributes:
        renew_at_s: the time to ask for the next renewal.
        why_lost: why it is lost for good.
        silent_since_s, why_silent: since when no request was answered, and why; None if the last was answered.
    """

    def __init__(self, times: LeaseTimes, epoch: int, asked_at_s: float) -> None:
        """Hold a lease that was granted. ``asked_at_s``: when the request for it was sent."""
        self.epoch = epoch
        self.why_lost: str | None = None
        self.silent_since_s: float | None = None
        self.why_silent = ""
        self._times = times
        self._confirmed_at_s = asked_at_s
        self.renew_at_s = asked_at_s + times.renew_every_s

    def may_act(self, now_s: float) -> bool:
        """Whether certainly no other supervisor leads."""
        until_s = self._confirmed_at_s + self._times.duration_s - self._times.margin_s
        return self.why_lost is None and now_s < until_s

    def age_s(self, now_s: float) -> float:
        """The time since the last request that the storage has answered."""
        return now_s - self._confirmed_at_s

    def confirm(self, asked_at_s: float) -> None:
        """Note the storage's answer, maybe late, to a request of ``asked_at_s``: this epoch was the latest."""
        self._confirmed_at_s = max(self._confirmed_at_s, asked_at_s)
        self.renew_at_s = max(self.renew_at_s, asked_at_s + self._times.renew_every_s)
        self.silent_since_s = None

    def miss(self, asked_at_s: float, now_s: float, why: str) -> None:
        """Note that a request of ``asked_at_s`` was not answered. The storage may have carried it out."""
        if self.silent_since_s is None:
            self.silent_since_s = asked_at_s
        self.why_silent = why
        self.renew_at_s = now_s + self._times.retry_every_s

    def lose(self, why: str) -> None:
        """Lose the lease for good: another supervisor leads, or this one has to read the registry again."""
        if self.why_lost is None:
            self.why_lost = why
