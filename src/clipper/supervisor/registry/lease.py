"""The lease of a supervisor, as its holder sees it: answers and times in, decisions out.

The registry's storage grants the lease for ``duration_s`` by its own clock, from when a request comes. The holder
counts by its own clock from *before* it asked, and stops ``margin_s`` earlier. So, unless the clocks drift apart by
more than that within a lease, it has stopped before the storage may give the lease to another supervisor, however late
answers come. Times are of one clock of the holder's machine that never goes back, and also counts while the machine
sleeps.

The registry itself depends on no clock: it refuses changes of an *epoch* that is not the latest, and each grant of the
lease begins a new one.
"""

from dataclasses import dataclass

# Another supervisor can take over once the holder was not heard of for so long. With what a start takes, that is to
# stay below 10 s.
DURATION_S = 5.0
# Several renewals may fail before the holder has to stop.
RENEW_EVERY_S = 1.0
RETRY_EVERY_S = 0.5
# It covers the drift of clocks, many times over. It need not cover what a storage that crashes forgets: what it has
# confirmed is on its disk.
MARGIN_S = 1.0


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """``duration_s``: from a request to the end of the lease that it is granted. ``retry_every_s``: after a renewal
    that failed. ``margin_s``: how much earlier than ``duration_s`` the holder stops."""

    duration_s: float = DURATION_S
    renew_every_s: float = RENEW_EVERY_S
    retry_every_s: float = RETRY_EVERY_S
    margin_s: float = MARGIN_S


class Lease:
    """The lease of one ``epoch``; every later grant has a higher one. ``why_lost``: why it is lost for good.
    ``silent_since_s``: since when no request was answered, and ``why_silent``; None if the last one was."""

    def __init__(self, times: LeaseTimes, epoch: int, asked_at_s: float) -> None:
        """``asked_at_s``: when the request was sent that the storage granted."""
        self.epoch = epoch
        self.why_lost: str | None = None
        self.silent_since_s: float | None = None
        self.why_silent = ""
        self._times = times
        self._confirmed_at_s = asked_at_s
        self._renew_at_s = asked_at_s + times.renew_every_s

    @property
    def renew_at_s(self) -> float:
        """The time to ask for the next renewal."""
        return self._renew_at_s

    @property
    def may_act_until_s(self) -> float:
        return self._confirmed_at_s + self._times.duration_s - self._times.margin_s

    def may_act(self, now_s: float) -> bool:
        """Whether certainly no other supervisor leads."""
        return self.why_lost is None and now_s < self.may_act_until_s

    def age_s(self, now_s: float) -> float:
        """Time since the last request that the storage has answered."""
        return now_s - self._confirmed_at_s

    def confirm(self, asked_at_s: float) -> None:
        """The storage has answered a request of ``asked_at_s``, and this epoch was the latest. Answers may be late."""
        self._confirmed_at_s = max(self._confirmed_at_s, asked_at_s)
        self._renew_at_s = max(self._renew_at_s, asked_at_s + self._times.renew_every_s)
        self.silent_since_s = None

    def miss(self, asked_at_s: float, now_s: float, why: str) -> None:
        """A request of ``asked_at_s`` was not answered. Whether the storage has carried it out is not known."""
        if self.silent_since_s is None:
            self.silent_since_s = asked_at_s
        self.why_silent = why
        self._renew_at_s = now_s + self._times.retry_every_s

    def lose(self, why: str) -> None:
        """Another supervisor has a higher epoch, or has to read the registry again before it may act. This is final."""
        if self.why_lost is None:
            self.why_lost = why
