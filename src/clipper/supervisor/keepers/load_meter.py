"""The load of a version since the last look, from what workers have counted since they started."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from clipper.control.statistics import VersionLoad
from clipper.managers.reconcile.autoscale import Load
from clipper.managers.reconcile.plan import Phase
from clipper.series.increases import sum_of_versions, version_increase

# Assumed until a replica has been seen to start: Python, and a framework.
DEFAULT_START_S = 5.0


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
        total = sum_of_versions(version_increase(self._before.get(instance), now) for instance, now in counted)
        if total is None:
            return None
        self._before |= dict(counted)
        before_s, self._looked_at_s = self._looked_at_s, now_s
        if before_s is None:
            return None
        return Load(
            at_s=now_s,
            interval_s=now_s - before_s,
            arrivals=total.arrivals,
            late=total.late,
            wait_s=total.wait_s / max(total.batches_sent, 1),
            service_s=total.service_s / max(total.batches_answered, 1),
            slo_s=min(load.slo_s for _, load in counted),
            capacity_per_s=_capacity_per_s(load for _, load in counted),
            ready=ready,
            start_s=start_s,
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
