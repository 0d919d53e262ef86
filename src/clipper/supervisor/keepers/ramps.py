"""Judges newcomers by feedback and by failures: decides for all workers which are let through and which are stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import astuple

from clipper.control.descriptions import EndedRamp
from clipper.control.messages import GetStatistics, Statistics
from clipper.control.snapshot import NO_OUTCOME, Newcomer, RampOutcome
from clipper.control.statistics import TrialReading
from clipper.errors import ClipperError
from clipper.learning.mathematics.arms import by_version, owners_of
from clipper.learning.mathematics.guardrail import FALSE_ALARMS, RampLosses, Verdict, judge, keys_of, ramp_losses
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import is_by_context
from clipper.learning.policies.trials import Evidence, evidence_of, fails_more, is_over
from clipper.learning.stores.store import EVERYONE, Store
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.registry.store import Put
from clipper.supervisor.rollout import newcomers, rollbacks

log = logging.getLogger(__name__)

# A harmful newcomer is asked for at most this much longer. A look reads a state of the store for each
# application with newcomers.
LOOK_EVERY_S = 0.5
# While the store or the registry is down, the next attempt follows after this.
RETRY_S = 2.0


_Key = tuple[str, str, int]

Ask = Callable[[GetStatistics], Awaitable[Sequence[tuple[int, Statistics]]]]


@dataclass(eq=False)
class Ramps:
    """Judges newcomers in a task of its own. Its decisions are in the registry before workers get them."""

    _catalog: Catalog
    _store: Store
    _wake: Callable[[], None]
    _ask: Ask

    def __post_init__(self) -> None:
        # The evidence of ongoing ramps, by application, newcomer and ramp.
        self._evidence: dict[_Key, RampLosses] = {}
        # By application and ongoing ramp: the last reading of each worker, including workers that have ended.
        self._trials: dict[tuple[str, int], dict[int, TrialReading]] = {}
        # By application, why its newcomers cannot be judged.
        self._failures: dict[str, str] = {}

    def outcome(self, record: ApplicationRecord, newcomer: Newcomer) -> RampOutcome:
        """Return what feedback said about a newcomer at the last look, or when it was stopped."""
        if newcomer.stopped is not None:
            return newcomer.outcome
        evidence = self._evidence.get((record.state_id, newcomer.name, newcomer.ramp))
        return NO_OUTCOME if evidence is None else outcome_of(evidence)

    def ended(self, record: ApplicationRecord) -> tuple[EndedRamp, ...]:
        return newcomers.ended_ramps(record, self._catalog.versions, self._catalog.current)

    def problems(self) -> list[str]:
        """Return stopped newcomers, until an operator acts on them, and newcomers that cannot be judged now."""
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
        while True:
            await asyncio.sleep(RETRY_S if self._failures else LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Judge all newcomers by the store's present sums."""
        await self._read_trials()
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
            state_key = self._catalog.state_keys([name.partition(":")[0]]).get(name, name)
            with contextlib.suppress(ClipperError):  # a few unused numbers stay in the store
                await self._store.forget(state_id, EVERYONE, [*keys_of(name, ramp), *keys_of(state_key, ramp)])
            del self._evidence[key]

    async def _read_trials(self) -> None:
        on_trial = {
            record.name: {
                (record.state_id, one.ramp) for one in (*record.newcomers, *record.watched) if not one.stopped
            }
            for record in self._catalog.applications.values()
            if record.watched or any(one.stopped is None for one in record.newcomers)
        }
        kept = set().union(*on_trial.values())
        self._trials = {key: readings for key, readings in self._trials.items() if key in kept}
        if not on_trial:
            return
        states = {name: {ramp: (state_id, ramp) for state_id, ramp in keys} for name, keys in on_trial.items()}
        for instance, reply in await self._ask(GetStatistics(tuple(on_trial), (), ((), ()))):
            for reading in reply.worker.applications:
                for trial in reading.trials:
                    key = states.get(reading.name, {}).get(trial.ramp)
                    if key is not None:
                        self._trials.setdefault(key, {})[instance] = trial

    def trial(self, record: ApplicationRecord, newcomer: Newcomer) -> Evidence:
        """Return how often a newcomer had failed by the last look, and what it is compared with."""
        return evidence_of(self._trials.get((record.state_id, newcomer.ramp), {}).values())

    async def _look_at(self, record: ApplicationRecord) -> None:
        allowed = record.selection.max_loss_increase
        for newcomer in (*record.watched, *record.newcomers):
            trial = self.trial(record, newcomer)
            if newcomer.stopped is None and fails_more(trial.newcomer, trial.rest, allowed):
                why = f"{shown_failures(trial)}; {because(allowed)}"
                self._stop(record.name, newcomer, why, self.outcome(record, newcomer))
            elif newcomer in record.watched and is_over(trial, allowed):
                self._end_watch(record.name, newcomer)
        ramped = [newcomer for newcomer in record.newcomers if newcomer.stopped is None]
        if not ramped:
            return
        totals = Ledger(None, await self._store.load(record.state_id, EVERYONE)).totals()
        state_keys = self._catalog.state_keys({newcomer.model for newcomer in ramped})
        totals = by_version(totals, state_keys, owners_of(totals.numbers))
        by_context = is_by_context(record.selection.policy, record.selection.prior_weight)
        for newcomer in ramped:
            evidence = ramp_losses(totals, newcomer.name, newcomer.ramp)
            if not by_context:
                evidence = evidence.everywhere
            self._evidence[record.state_id, newcomer.name, newcomer.ramp] = evidence
            verdict = judge(evidence, allowed, by_context=by_context)
            if verdict is not None:
                self._decide(record.name, newcomer, verdict, evidence)

    def _decide(self, name: str, newcomer: Newcomer, verdict: Verdict, evidence: RampLosses) -> None:
        """Decide on the present registry: an operator may have changed it meanwhile."""
        record = self._catalog.applications.get(name)
        if record is None or newcomer not in record.newcomers:
            return
        outcome = outcome_of(evidence)
        if verdict != "through":
            self._stop(name, newcomer, f"{shown(evidence)}; {because(record.selection.max_loss_increase)}", outcome)
            return
        ended = EndedRamp(newcomer.model, newcomer.version, time.time(), *astuple(outcome))
        changes = rollbacks.let_through(self._catalog, record, newcomer, ended)
        self._catalog.commit(*changes, why=f"it is through: {shown(evidence)}")
        log.info(
            "application %(application)s: %(model)s is through: %(reason)s",
            {"application": name, "model": newcomer.name, "reason": shown(evidence)},
        )
        self._wake()

    def _stop(self, name: str, newcomer: Newcomer, why: str, outcome: RampOutcome) -> None:
        """Stop a newcomer, unless an operator has acted on it meanwhile, or the version before does not run."""
        record = self._catalog.applications.get(name)
        if record is None or newcomer not in (*record.newcomers, *record.watched):
            return
        changes = rollbacks.stop(self._catalog, record, newcomer, why, outcome)
        if changes is None:
            return
        self._catalog.commit(*changes)
        log.warning(
            "application %(application)s: %(model)s was stopped: %(reason)s",
            {"application": name, "model": newcomer.name, "reason": why},
        )
        self._wake()

    def _end_watch(self, name: str, newcomer: Newcomer) -> None:
        record = self._catalog.applications.get(name)
        if record is not None and newcomer in record.watched:
            self._catalog.commit(Put(newcomers.unwatched(record, newcomer)))
            self._wake()


def outcome_of(evidence: RampLosses) -> RampOutcome:
    everywhere, compared = evidence.everywhere, evidence.compared
    own, rest = compared.newcomer, compared.rest
    return RampOutcome(
        round(everywhere.newcomer.count),
        round(everywhere.rest.count),
        own.mean if own.count else None,
        rest.mean if rest.count else None,
        round(own.count) if evidence.is_by_context and own.count < everywhere.newcomer.count else None,
    )


def because(allowed: float | None) -> str:
    """Return why these numbers stop a newcomer."""
    return (
        f"these differ by more than max_loss_increase, {allowed:g}, allows (the chance that this is an error is at "
        f"most {FALSE_ALARMS:.0%})"
    )


def shown_failures(trial: Evidence) -> str:
    own, rest = trial.newcomer, trial.rest
    of_rest = f"{rest.loss:.0f} of {rest.count:.0f} other queries" if rest.count else "no others were asked"
    error = f" (its last error: {trial.last_error})" if trial.last_error else ""
    return f"{own.loss:.0f} of {own.count:.0f} queries to it failed or were late{error}, {of_rest}"


def shown(evidence: RampLosses) -> str:
    text = _shown(evidence.everywhere)
    if evidence.is_by_context and evidence.matters_to_some:
        text += f"; where the policy would ask it, {_shown(evidence)}"
    return text


def _shown(evidence: RampLosses) -> str:
    own, rest = evidence.newcomer, evidence.rest
    return (
        f"{own.count:.0f} of its answers with feedback lost {own.mean:.3f} on average, "
        f"{rest.count:.0f} others {rest.mean:.3f}"
    )
