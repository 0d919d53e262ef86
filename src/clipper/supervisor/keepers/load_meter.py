"""The load of a version since the last look, from what workers have counted since they started."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from clipper.control.statistics import VersionLoad
from clipper.managers.reconcile.autoscale import Load
from clipper.managers.reconcile.plan import Phase

# Assumed until a replica has been seen to start: Python, and a framework.
DEFAULT_START_S = 5.0


@dataclass(frozen=True, slots=True)
class Increase:
    """What one worker has counted since the look before; see ``statistics.VersionLoad``."""

    arrivals: int = 0
    late: int = 0
    batches_sent: int = 0
    wait_s: float = 0.0
    batches_answered: int = 0
    service_s: float = 0.0


class LoadMeter:
    """Of one version. A worker that does not answer in time is left out of that look and counted in the next one."""

    def __init__(self) -> None:
        self._before: dict[int, VersionLoad] = {}
        self._looked_at_s: float | None = None

    def look(self, counted: Sequence[tuple[int, VersionLoad]], now_s: float, ready: int, start_s: float) -> Load | None:
        """What was counted since the look before.

        Args:
            counted: by each worker that answered, with its instance: a worker that is started again has a new one.

        Returns:
            None at the first look, and if no worker answered.
        """
        if not counted:
            return None
        parts = [_since(self._before.get(instance), now) for instance, now in counted]
        self._before |= dict(counted)
        before_s, self._looked_at_s = self._looked_at_s, now_s
        if before_s is None:
            return None
        sent, answered = sum(part.batches_sent for part in parts), sum(part.batches_answered for part in parts)
        return Load(
            at_s=now_s,
            interval_s=now_s - before_s,
            arrivals=sum(part.arrivals for part in parts),
            late=sum(part.late for part in parts),
            wait_s=sum(part.wait_s for part in parts) / max(sent, 1),
            service_s=sum(part.service_s for part in parts) / max(answered, 1),
            slo_s=min(load.slo_s for _, load in counted),
            capacity_per_s=_capacity_per_s(load for _, load in counted),
            ready=ready,
            start_s=start_s,
        )


def _since(before: VersionLoad | None, now: VersionLoad) -> Increase:
    if before is None or before.arrivals > now.arrivals:  # its worker, or its queue, is new
        before = VersionLoad(now.model, now.version, 0, 0, 0, 0.0, 0, 0.0, now.slo_s, {})
    return Increase(
        now.arrivals - before.arrivals,
        now.late - before.late,
        now.batches_sent - before.batches_sent,
        now.wait_s - before.wait_s,
        now.batches_answered - before.batches_answered,
        now.service_s - before.service_s,
    )


def _capacity_per_s(loads: Iterable[VersionLoad]) -> float:
    """The mean over the replicas; 0 if nothing is known.

    Of several workers the highest rate is right: the others saw the replica busy with batches that were not theirs.
    """
    rates: dict[str, float] = {}
    for load in loads:
        for replica, rate_per_s in load.rows_per_s.items():
            rates[replica] = max(rate_per_s, rates.get(replica, 0.0))
    return fmean(rates.values()) if rates else 0.0


class StartTimes:
    """How long replicas of one version take to start, from looks at their phases."""

    def __init__(self) -> None:
        self.start_s = DEFAULT_START_S
        self._starting: dict[str, float] = {}

    def look(self, phases: Mapping[str, Phase], now_s: float) -> None:
        """``phases`` is by replica id. A start that is shorter than the interval between looks does not count."""
        for replica, began_s in list(self._starting.items()):
            if phases.get(replica) != "starting":
                del self._starting[replica]
                if phases.get(replica) == "ready":
                    self.start_s = now_s - began_s
        for replica, phase in phases.items():
            if phase == "starting":
                self._starting.setdefault(replica, now_s)
