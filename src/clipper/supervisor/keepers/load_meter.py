"""The load of a version since the last look, from what workers have counted since they started."""

from collections.abc import Mapping
from math import inf
from statistics import fmean

from clipper.control.statistics import VersionStatistics
from clipper.supervisor.managers.reconcile.autoscale import Load
from clipper.supervisor.managers.reconcile.plan import Phase
from clipper.supervisor.metrics.sums import increase, total

# Assumed until a replica has been seen to start: Python, and a framework.
DEFAULT_START_S = 5.0


class LoadMeter:
    """Measures the load of one version. A worker that does not answer in time is counted in the next look."""

    def __init__(self) -> None:
        self._before: dict[int, VersionStatistics] = {}
        self._looked_at_s: float | None = None

    def look(self, counted: Mapping[int, VersionStatistics], now_s: float, ready: int, start_s: float) -> Load | None:
        """What was counted since the look before.

        Args:
            counted: by each worker that answered, by its instance: a worker that is started again has a new one.

        Returns:
            None at the first look, and if no worker answered.
        """
        if not counted:
            return None
        found = total([increase(self._before.get(instance), now) for instance, now in counted.items()])
        self._before |= counted
        before_s, self._looked_at_s = self._looked_at_s, now_s
        if before_s is None:
            return None
        late = found.rejected + found.expired
        # Workers of an older Clipper say only what came of queries. They are being replaced.
        arrivals = found.outputs + found.model_errors + late if found.arrivals is None else found.arrivals
        return Load(
            at_s=now_s,
            interval_s=now_s - before_s,
            arrivals=arrivals,
            late=late,
            wait_s=found.queue_wait_s.mean,
            service_s=found.batch_latency_s.mean,
            slo_s=inf if found.slo_s is None else found.slo_s,
            capacity_per_s=fmean(found.rows_per_s.values()) if found.rows_per_s else 0.0,
            ready=ready,
            start_s=start_s,
        )


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
