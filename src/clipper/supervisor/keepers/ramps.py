"""Judges newcomers by their feedback: decides, for all workers at once, which are through and which are stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from msgspec.structs import astuple

from clipper.control.snapshot import NO_OUTCOME, Newcomer, RampOutcome
from clipper.errors import ClipperError
from clipper.registry.records import ApplicationRecord, EndedRamp
from clipper.rollout import newcomers, rollbacks
from clipper.selection.learning.guardrail import FALSE_ALARMS, RampLosses, Verdict, judge, keys_of, ramp_losses
from clipper.selection.learning.ledger import Ledger
from clipper.selection.stores.store import EVERYONE, Store
from clipper.supervisor.catalog import Catalog

log = logging.getLogger(__name__)

# A newcomer that does harm is asked for at most so much longer. A look reads one state of the store for each
# application with newcomers.
LOOK_EVERY_S = 0.5
# A store or registry that is down is tried again this often.
RETRY_S = 2.0


_Key = tuple[str, str, int]


class Ramps:
    """Works in one task; all that runs on the supervisor's event loop.

    Its decisions are in the registry before workers get them, so they survive a restart.
    """

    def __init__(self, catalog: Catalog, store: Store, wake: Callable[[], None]) -> None:
        """``wake`` has the reconciler look at the catalog."""
        self._catalog = catalog
        self._store = store
        self._wake = wake
        # By application, newcomer and ramp, of those that go on.
        self._evidence: dict[_Key, RampLosses] = {}
        # By application, why its newcomers cannot be looked at.
        self._failures: dict[str, str] = {}

    def outcome(self, record: ApplicationRecord, newcomer: Newcomer) -> RampOutcome:
        """What feedback said of it at the last look, or when it was stopped."""
        if newcomer.stopped is not None:
            return newcomer.outcome
        evidence = self._evidence.get((record.state_id, newcomer.name, newcomer.ramp))
        return NO_OUTCOME if evidence is None else outcome_of(evidence)

    def ended(self, record: ApplicationRecord) -> tuple[EndedRamp, ...]:
        """The ended ramps of the versions that answer now."""
        return newcomers.ended_ramps(record, self._catalog.versions, self._catalog.current)

    def problems(self) -> list[str]:
        """Newcomers that were stopped, until an operator acts on that, and newcomers that cannot be judged now."""
        failed = [
            f"application {name!r}: its newcomers cannot be judged now: {why}" for name, why in self._failures.items()
        ]
        return failed + [
            f"application {name!r}: {newcomer.name} was stopped: {newcomer.stopped}"
            for name, record in sorted(self._catalog.applications.items())
            for newcomer in record.newcomers
            if newcomer.stopped is not None
        ]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(RETRY_S if self._failures else LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Judge all newcomers by what the store has of them now."""
        failures: dict[str, str] = {}
        for record in list(self._catalog.applications.values()):
            try:
                await self._look_at(record)
            except ClipperError as error:  # the store, the registry, or a state that cannot be read
                failures[record.name] = str(error)
                if record.name not in self._failures:
                    log.warning(
                        "application %(application)s: its newcomers cannot be judged now: %(error)s",
                        {"application": record.name, "error": error},
                    )
        self._failures = failures
        going_on = {
            (record.state_id, newcomer.name, newcomer.ramp)
            for record in self._catalog.applications.values()
            for newcomer in record.newcomers
            if newcomer.stopped is None
        }
        for key in self._evidence.keys() - going_on:
            state_id, name, ramp = key
            with contextlib.suppress(ClipperError):  # some numbers stay that nobody reads
                await self._store.forget(state_id, EVERYONE, keys_of(name, ramp))
            del self._evidence[key]

    async def _look_at(self, record: ApplicationRecord) -> None:
        ramped = [newcomer for newcomer in record.newcomers if newcomer.stopped is None]
        if not ramped:
            return
        totals = Ledger(None, await self._store.load(record.state_id, EVERYONE)).totals()
        for newcomer in ramped:
            evidence = ramp_losses(totals, newcomer.name, newcomer.ramp)
            self._evidence[record.state_id, newcomer.name, newcomer.ramp] = evidence
            verdict = judge(evidence, record.selection.max_loss_increase)
            if verdict is not None:
                self._decide(record.name, newcomer, verdict, evidence)

    def _decide(self, name: str, newcomer: Newcomer, verdict: Verdict, evidence: RampLosses) -> None:
        """On the registry as it is by now: an operator may have changed it meanwhile."""
        record = self._catalog.applications.get(name)
        if record is None or newcomer not in record.newcomers:
            return
        outcome = outcome_of(evidence)
        if verdict == "through":
            ended = EndedRamp(newcomer.model, newcomer.version, time.time(), *astuple(outcome))
            changes = rollbacks.let_through(self._catalog, record, newcomer, ended)
            self._catalog.commit(*changes, why=f"it is through: {shown(evidence)}")
            log.info(
                "application %(application)s: %(model)s is through: %(reason)s",
                {"application": name, "model": newcomer.name, "reason": shown(evidence)},
            )
        else:
            allowed = record.selection.max_loss_increase
            why = (
                f"{shown(evidence)}; these differ by more than max_loss_increase, {allowed:g}, allows (the chance that "
                f"this is an error is at most {FALSE_ALARMS:.0%})"
            )
            stopping = rollbacks.stop(self._catalog, record, newcomer, why, outcome)
            if stopping is None:
                return
            self._catalog.commit(*stopping)
            log.warning(
                "application %(application)s: %(model)s was stopped: %(reason)s",
                {"application": name, "model": newcomer.name, "reason": why},
            )
        self._wake()


def outcome_of(evidence: RampLosses) -> RampOutcome:
    own, rest = evidence.newcomer, evidence.rest
    return RampOutcome(
        round(own.count),
        round(rest.count),
        own.mean if own.count else None,
        rest.mean if rest.count else None,
    )


def shown(evidence: RampLosses) -> str:
    own, rest = evidence.newcomer, evidence.rest
    return (
        f"{own.count:.0f} of its answers with feedback lost {own.mean:.3f} on average, "
        f"{rest.count:.0f} others {rest.mean:.3f}"
    )
