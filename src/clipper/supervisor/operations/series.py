"""Shows the series that are kept."""

from collections.abc import Iterable

from clipper.api.series import Named, Series, SeriesOverview
from clipper.supervisor.history.series.ring import Subject
from clipper.supervisor.history.series.sampler import LATEST_POINTS, STEP_S
from clipper.supervisor.history.series.values import OF_APPLICATIONS, OF_MODELS, OF_OVERVIEW
from clipper.supervisor.operations.parts import OfParts


class SeriesOperations(OfParts):
    """They change nothing."""

    async def series_overview(self) -> SeriesOverview:
        sampler = self._sampling.sampler
        self._forget_former()

        def latest(kind: str, names: Iterable[str]) -> dict[str, Named]:
            ordered = sorted(names)
            subjects = (Subject(kind, name) for name in ordered)
            return dict(zip(ordered, sampler.latest.read_all(subjects, OF_OVERVIEW[kind], LATEST_POINTS)))

        return SeriesOverview(
            step_s=STEP_S,
            end_s=self._sampling.taken_at_s,
            applications=latest("application", self._catalog.applications),
            models=latest("model", self._catalog.models),
            workers=latest("worker", (str(worker.index) for worker in self._workers)),
            left_out=len(sampler.ring.left_out),
        )

    async def application_series(self, name: str, seconds: int) -> Series:
        self._catalog.application(name)
        self._forget_former()
        return self._all_of(Subject("application", name), OF_APPLICATIONS, seconds)

    async def model_series(self, name: str, seconds: int) -> Series:
        self._catalog.model(name)
        return self._all_of(Subject("model", name), OF_MODELS, seconds)

    def _forget_former(self) -> None:
        """An application that was made since the last sample must not show what one of its name did before it."""
        ids = {one.name: one.state_id for one in self._catalog.applications.values()}
        self._sampling.sampler.forget_former(ids)

    def _all_of(self, subject: Subject, always: tuple[str, ...], seconds: int) -> Series:
        ring = self._sampling.sampler.ring
        names = sorted({*always, *ring.names(subject)})
        return Series(
            step_s=STEP_S,
            end_s=self._sampling.taken_at_s,
            series=ring.read(subject, names, int(seconds / STEP_S)),
            left_out=subject in ring.left_out,
        )
