"""Reports when a test of models has ended: which model won, and how sure that is."""

import logging
import time
from dataclasses import dataclass

from clipper.control.descriptions import Standing
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.history.events import EventKeeper
from clipper.supervisor.history.story import Story
from clipper.supervisor.workers.workers import Workers

log = logging.getLogger(__name__)

# A test takes minutes to weeks. A look costs each worker some 100 us for each application; without a test among the
# policies it is skipped.
LOOK_EVERY_S = 2.0


@dataclass(eq=False)
class EndedTests:
    """Reports each test that has ended once, and again in the history after a restart."""

    _catalog: Catalog
    _workers: Workers
    _story: Story
    _events: EventKeeper

    def __post_init__(self) -> None:
        # By application, the model that won.
        self._winners: dict[str, str] = {}
        # Applications whose test was seen open.
        self._open: set[str] = set()

    async def look(self) -> None:
        applications = self._catalog.applications.values()
        if tests := [record.name for record in applications if record.selection.policy == "best_arm"]:
            workers = await self._workers.statistics(tests, ())
            self.take([(one.name, one.test) for worker in workers for one in worker.applications if one.test])

    def take(self, tests: list[tuple[str, Standing]]) -> None:
        """Report the tests that have ended since the last call. A worker may know before others."""
        ended = {name: test for name, test in tests if test.winner is not None}
        for name, test in ended.items():
            if self._winners.get(name) != test.winner:
                verdict = f"its test has ended: {test.winner} is the best model"
                text = (
                    f"{verdict}, or within {test.tolerance:g} of it in mean "
                    f"loss, with a confidence of {test.confidence:g}, by {test.observations:.0f} pieces of feedback"
                )
                log.info("application %(application)s: %(reason)s", {"application": name, "reason": text})
                self._story.note(time.time(), name, text)
                subject = f"application {name}"
                last = self._events.log.find(None, 1, "test", subject).events
                # An earlier supervisor's report is repeated only if the test was open meanwhile.
                if name in self._open or not last or not last[0].message.startswith(verdict):
                    self._events.record([NewEvent("test", subject, text)])
        self._open = {name for name, _ in tests if name not in ended}
        self._winners = {name: test.winner for name, test in ended.items() if test.winner is not None}
