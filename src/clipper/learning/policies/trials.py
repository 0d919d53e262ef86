"""Trials: find out whether a newcomer fails, or is late, more than the version before it. They need no feedback.

A query counts 1 against a model whose output is missing in the answer, for whatever reason, and else 0. The newcomer's
queries are compared with those of the version before, by the test of ``guardrail``: with the failures of both in place
of losses, it stops a newcomer once

    mean(newcomer) - mean(rest) - allowed > bound(V_newcomer, 0.8 a) / n_newcomer + bound(V_rest, 0.2 a) / n_rest

which happens with a probability of at most ``a`` = 5 % over all looks if it fails at most ``allowed`` more (Howard,
Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, Theorem 4; see there). The test is valid whenever chance alone
decides which of the two a query goes to, however rates change over time: when a backend that both use is down, both
fail alike, and nothing is stopped.

**Ramped newcomers** get their queries by chance, so all queries count.

**Watched newcomers** get all of their link's queries: where nothing learns, a deployment is for all at once. So a
comparison begins with a failure. From then on chance sends every second query to the version before, which still runs,
and only these queries count. It ends after ``COMPARED`` queries without another failure of the newcomer. Until its
first answers have come, only ``FIRST_OPEN`` queries wait for a newcomer at once, and one more for each answer that has
come: a version that hangs makes no more queries late than that. If a worker's own counts already say that the newcomer
fails more, the worker asks it no more than seldom, without waiting for the supervisor, which decides by all workers'
counts. So a version that fails each query costs each worker about a dozen of them, at any rate of queries.

**A newcomer may be late at first**: for ``WARM_UP_S`` from its first answer its batch sizes are learned and its caches
fill, which makes many queries late at once and says nothing of later ones. Of these queries only those count for which
it fails, and none of them ends its watch. The guardrail leaves them out, too: see ``Trials.is_warming``.
"""

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from random import Random

from clipper.control.statistics import TrialReading
from clipper.learning.mathematics.guardrail import ENOUGH_FEEDBACK, FALSE_ALARMS, NEWCOMERS_PART, NO_LOSSES, Losses
from clipper.learning.policies.policy import Choice

# The queries without a failure after which a comparison ends.
COMPARED = 24
# The queries that may wait at once for a newcomer that has not answered yet: as many as a test needs to stop it.
FIRST_OPEN = 16
# The probability of asking a newcomer that fails more by this worker's counts, or for which too many queries wait. It
# may have recovered, and queries whose clients gave up never end.
SELDOM = 0.02
# The allowed share of failures if no other version was asked meanwhile: a newcomer answers at least half of its
# queries.
EXPECTED_FAILURES = 0.5
# How long a newcomer may be late. Learning batch sizes takes some hundred batches, two seconds under load.
WARM_UP_S = 10.0
# A watch ends after this many answers, and if the newcomer fails a little more than allowed, after ten times as many.
ENOUGH_ANSWERS = ENOUGH_FEEDBACK
MOST_ANSWERS = 10 * ENOUGH_ANSWERS
# The most queries that a worker remembers as compared; clients gave up those beyond it.
MAX_OPEN = 10_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """Queries with a part of the newcomer's that count, and those of the version before or of all others.

    Attributes:
        newcomer, rest: their failures as losses.
        answers: queries of the newcomer that have ended after it had warmed up, whether they count or not.
        last_error: the newcomer's last error; empty if there was none.
    """

    newcomer: Losses
    rest: Losses
    answers: int
    last_error: str


def evidence_of(readings: Collection[TrialReading]) -> Evidence:
    """Sum the readings of all workers."""

    def sums(which: str) -> Losses:
        return Losses(*(sum(getattr(one, which)[part] for one in readings) for part in range(3)))

    last_error = next((one.last_error for one in readings if one.last_error), "")
    return Evidence(sums("newcomer"), sums("rest"), sum(one.answers for one in readings), last_error)


def fails_more(newcomer: Losses, rest: Losses, allowed: float | None) -> bool:
    """Return whether a newcomer certainly fails more than allowed. It may be asked after every query. ``allowed``: by
    how much its share of failures may exceed that of the rest; None for any.
    """
    if allowed is None or not newcomer.count:
        return False
    margin = newcomer.margin(FALSE_ALARMS * NEWCOMERS_PART)
    if not rest.count:
        return newcomer.mean - EXPECTED_FAILURES > margin
    return newcomer.mean - rest.mean - allowed > margin + rest.margin(FALSE_ALARMS * (1 - NEWCOMERS_PART))


def is_over(evidence: Evidence, allowed: float | None) -> bool:
    """Return whether the watch of a newcomer ends that was not stopped."""
    if evidence.answers < ENOUGH_ANSWERS:
        return False
    newcomer, rest = evidence.newcomer, evidence.rest
    excess = newcomer.mean - rest.mean if newcomer.count and rest.count else 0.0
    return allowed is None or excess <= allowed or evidence.answers >= MOST_ANSWERS


@dataclass(frozen=True, slots=True)
class Tried:
    """A newcomer that is on trial.

    Attributes:
        ramp: the newcomer's number.
        rest: the name of the version before it; None if all other models are compared.
        is_watched: whether it gets all queries of its link, and the version before only those that are compared.
    """

    ramp: int
    rest: str | None
    is_watched: bool


class Trial:
    """A newcomer's trial in a worker."""

    def __init__(self) -> None:
        self._newcomer = self._rest = NO_LOSSES
        self._answers = self._open = self._left = 0
        self._room = FIRST_OPEN
        self._is_closed = False
        self._warm_at_s: float | None = None
        self._last_error = ""
        # Ids of open queries of a watched newcomer that were drawn by chance.
        self._drawn: set[int] = set()

    def asks_newcomer(self, query_id: int, random: Random) -> tuple[bool, float]:
        """Return whether a query goes to a watched newcomer or the version before, and the probability of that."""
        is_compared = self._left > 0 or self._is_closed
        if is_compared:
            self._left -= 1
            share = SELDOM if self._is_closed else 0.5
        else:
            share = 1.0 if self._open < self._room else SELDOM
        if is_compared:
            if len(self._drawn) >= MAX_OPEN:
                self._drawn.clear()
            self._drawn.add(query_id)
        if share < 1.0 and random.random() >= share:
            return False, 1.0 - share
        self._open += 1
        return True, share

    def ended(
        self,
        query_id: int,
        failure: float,
        error: str,
        allowed: float | None,
        now_s: float,
        *,
        is_late: bool,
        is_watched: bool,
    ) -> None:
        """Count a query of the newcomer that is answered, with or without its output."""
        if self._warm_at_s is None:
            self._warm_at_s = now_s + WARM_UP_S
        is_warming = self.is_warming(now_s)
        self._answers += not is_warming
        self._open = max(self._open - 1, 0)
        if failure:
            self._left = COMPARED
            if is_late and is_warming:
                self._drawn.discard(query_id)
                return
            self._last_error = error
        else:
            self._room += 1
        if not is_watched or query_id in self._drawn:
            self._drawn.discard(query_id)
            self._newcomer = self._newcomer.after(failure)
        if is_watched and (failure or self._is_closed):
            self._is_closed = fails_more(self._newcomer, self._rest, allowed)

    def is_warming(self, now_s: float) -> bool:
        return self._warm_at_s is None or now_s < self._warm_at_s

    def rest_ended(self, query_id: int, failure: float, *, is_watched: bool) -> None:
        """Count a query of the version before, or of other models, unless it was sent there for want of room."""
        if not is_watched or query_id in self._drawn:
            self._drawn.discard(query_id)
            self._rest = self._rest.after(failure)

    def reading(self, ramp: int) -> TrialReading:
        return TrialReading(ramp, self._answers, astuple(self._newcomer), astuple(self._rest), self._last_error)


class Trials:
    """All trials of an application in a worker.

    Attributes:
        tried: the newcomers on trial, by the names under which they are asked.
    """

    def __init__(self) -> None:
        self.tried: Mapping[str, Tried] = {}
        self._allowed: float | None = None
        self._trials: dict[int, Trial] = {}

    def follow(self, tried: Mapping[str, Tried], allowed: float | None) -> None:
        """Continue with these newcomers, and forget all others."""
        self.tried, self._allowed = tried, allowed
        self._trials = {one.ramp: self._trials.get(one.ramp) or Trial() for one in tried.values()}

    def is_warming(self, ramp: int, now_s: float) -> bool:
        """Return whether a newcomer, by its ramp's number, may be late for a query that has to be answered by then."""
        trial = self._trials.get(ramp)
        return trial is not None and trial.is_warming(now_s)

    def assigned(self, query_id: int, choice: Choice, random: Random, asked: int = 0) -> Choice:
        """Return a query's choice, in which chance has replaced some watched newcomers by the versions before.
        ``asked``: how many of the models it asks already; their places stay.
        """
        models, probability = list(choice.models), 1.0
        for place in range(asked, len(models)):
            tried = self.tried.get(models[place])
            # A version before that has a link of its own may be asked already, beside the newcomer.
            if tried is None or not tried.is_watched or tried.rest is None or tried.rest in models:
                continue
            is_newcomers, drawn = self._trials[tried.ramp].asks_newcomer(query_id, random)
            probability *= drawn
            if not is_newcomers:
                models[place] = tried.rest
        if probability == 1.0:
            return choice
        # Of several models in an answer, the shares are weights.
        shares = (choice.shares[0] * probability,) if len(models) == 1 else choice.shares
        if tuple(models) == choice.models:
            return Choice(choice.models, shares, choice.beliefs, choice.among, choice.steps)
        # Beliefs have picked the newcomer's place. Without them, the version before is not one of ``among``.
        among = None if choice.beliefs is None else choice.among
        if among is not None:
            among = tuple(models[0] if model == choice.models[0] else model for model in among)
        return Choice(tuple(models), shares, choice.beliefs, among, choice.steps)

    def ended(
        self,
        query_id: int,
        models: tuple[str, ...],
        missing: Collection[str],
        error: str,
        now_s: float,
        *,
        late: Collection[str] = (),
    ) -> None:
        """Count a query that is answered.

        Args:
            missing: the asked models without an output.
            late: the missing models for which there was no time.
        """
        for name, tried in self.tried.items():
            trial = self._trials[tried.ramp]
            if name in models:
                failure = float(name in missing)
                trial.ended(
                    query_id, failure, error, self._allowed, now_s, is_late=name in late, is_watched=tried.is_watched
                )
            elif tried.rest is None:
                trial.rest_ended(query_id, len(missing) / len(models), is_watched=False)
            elif tried.rest in models:
                trial.rest_ended(query_id, float(tried.rest in missing), is_watched=tried.is_watched)

    def readings(self) -> tuple[TrialReading, ...]:
        return tuple(trial.reading(ramp) for ramp, trial in self._trials.items())
