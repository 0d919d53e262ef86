"""An application's policy at work. A failure in a user's own policy costs a query its answer, and nothing else."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

import msgspec

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument, PolicyFailed
from clipper.learning.mathematics.totals import Totals
from clipper.learning.own_code.watch import Made
from clipper.learning.policies.by_name import POLICIES, make_loss, make_policy
from clipper.learning.policies.candidates import RESCUED, candidates
from clipper.learning.policies.policy import Choice, Combined, Outlook, Policy, QueryView, Step
from clipper.learning.policies.prices import Prices
from clipper.learning.policies.ramp import Ramp
from clipper.worker.selection.counts import ApplicationCounts
from clipper.worker.selection.feedback.scoring import MAX_CHARACTERS


class Selector:
    """Selects and combines by the policy, and counts its failures.

    Attributes:
        policy, loss: Clipper's simplest if the user's own cannot be made; then every query gets ``policy_error``.
        no_totals: empty totals for a policy that does not read any; None if the policy reads them.
        goes_on: whether the policy may ask further models after it has seen outputs.
        weighs_time: whether the policy selects by quality and by who is in time, each learned apart: Clipper's own do.
            To a user's own, a model that has no time loses what the user gets instead.
        has_stand_ins: whether another model may answer in the place of one that fails: the policy is Clipper's own, and
            asks one model.
        keeps_input: whether the policy also learns from the query's input.
        learns: see ``Policy.learns``.
        may_need_input: whether the input is kept, for this policy or to ask models whose output feedback needs.
        believes_one: whether the output of a single asked model is the answer, with confidence 1.
        goes_by: see ``Policy.goes_by``; a user's own policy sees all of a query.
        may_ration: whether prices may decide among which models the policy selects.
        makes_confidence: whether the confidence of answers is not simply the policy's.
    """

    def __init__(
        self, application: ApplicationSnapshot, counts: ApplicationCounts, make: Callable[[ApplicationSnapshot], Made]
    ) -> None:
        selection = application.selection
        self._name = selection.policy
        self._counts = counts
        self._is_of_user = selection.policy not in POLICIES
        self._problem: str | None = None
        # A failure of the previous policy is not this one's.
        counts.last_policy_error = counts.why_no_policy = None
        try:
            made = make(application)
            self.policy: Policy = made.policy
            self.loss = made.loss
        except InvalidArgument as error:
            self._problem = counts.last_policy_error = counts.why_no_policy = str(error)
            self.policy, self.loss = make_policy("single"), make_loss("zero_one")
        # A user's own policy need not be a subclass, and may lack these.
        self._is_settled = getattr(self.policy, "is_settled", lambda *_: False)
        self.keeps_input = bool(getattr(self.policy, "keeps_input", False))
        self.learns = bool(getattr(self.policy, "learns", True))
        self.may_ration = bool(getattr(self.policy, "has_budget", False))
        self.goes_on = getattr(type(self.policy), "next", Policy.next) is not Policy.next
        self.no_totals = None if self.learns and self._problem is None else Totals()
        self.goes_by = "query" if self._is_of_user else self.policy.goes_by
        self.may_need_input = self.keeps_input or self.policy.feedback == "all"
        self.makes_confidence = selection.calibrate or selection.confidence_from != "agreement"
        self.believes_one = type(self.policy).combine is Policy.combine and not self.makes_confidence
        self.weighs_time = not self._is_of_user
        self.has_stand_ins = not self._is_of_user and not self.goes_on and self.policy.feedback == "selected"

    def only_choice(self, models: tuple[str, ...]) -> Choice | None:
        """Return the only choice if there is a single model; None for more models, or for a user's own policy."""
        has_one = len(models) == 1 and not self._is_of_user
        return Choice(models, (1.0,)) if has_one and self._problem is None else None

    def tells_apart(self, context: str | None) -> bool:
        """Whether the policy knows of a query in this context how much it gains by a scarce model, beside others."""
        return self.goes_by == "query" or (self.goes_by == "context" and context is not None)

    def candidates(
        self,
        models: tuple[str, ...],
        totals: Totals,
        query: QueryView,
        default_loss: float,
        rescued: float = RESCUED,
        prices: Prices | None = None,
    ) -> tuple[str, ...]:
        """Return the models that the policy selects among for a query, if not all surely answer in time for nothing."""
        if self._is_of_user:
            return models
        return candidates(self.policy, models, totals, query, default_loss, rescued, prices)

    def select_beside(
        self, ramp: Ramp, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random
    ) -> Choice:
        """Select, and give newcomers their share of the queries. Raises PolicyFailed like ``select``."""
        is_joint = self.policy.feedback == "all"
        return ramp.select(models, lambda among: self.select(among, totals, query, random), random, is_joint=is_joint)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        """Let the policy select.

        Raises PolicyFailed if the user's own policy raised, could not be made, or did not return a choice of these
        models.
        """
        if self._problem is not None:
            raise PolicyFailed(self._problem)
        try:
            choice = self.policy.select(models, totals, query, random)
            if self._is_of_user:
                choice = checked_choice(choice, models)
                self._counts.bound_sets()
        except (Exception, SystemExit) as error:  # the user's code may raise anything; the user gets to read it
            raise self._failed("select", error) from error
        return choice

    def next(
        self,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
        query: QueryView,
        outlook: Outlook,
        random: Random,
    ) -> Choice | None:
        """Let the policy choose further models. None, or a choice without more models, asks nothing further.

        Raises PolicyFailed if the user's own policy raised, or did not return an extension of this choice.
        """
        try:
            further = self.policy.next(choice, outputs, totals, query, outlook, random)
            if self._is_of_user and further is not None:
                further = checked_further(further, choice, outlook)
                self._counts.bound_sets()
        except (Exception, SystemExit) as error:  # as in select
            raise self._failed("next", error) from error
        return further

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        """Let the policy make an answer from at least one output.

        Raises PolicyFailed if the user's own policy raised, or did not return an answer.
        """
        try:
            combined = self.policy.combine(choice, outputs, totals, query)
            if self._is_of_user:
                combined = checked_combined(combined)
        except (Exception, SystemExit) as error:  # as in select
            raise self._failed("combine", error) from error
        return combined

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        """See ``Policy.is_settled``. Raises PolicyFailed if the user's own policy raised."""
        try:
            return bool(self._is_settled(choice, outputs, lost, threshold))
        except (Exception, SystemExit) as error:  # as in select
            raise self._failed("is_settled", error) from error

    def _failed(self, method: str, error: BaseException) -> PolicyFailed:
        problem = f"policy {self._name} failed in {method}: {type(error).__name__}: {error}"[:MAX_CHARACTERS]
        self._counts.fail_policy(problem)
        return PolicyFailed(problem)


# Shares may miss a sum of 1 by this: rounding errors in single precision.
_ROUNDING = 1e-3

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def checked_choice(choice: object, models: Sequence[str]) -> Choice:
    """Return ``choice`` in the application's order, with plain floats.

    Raises InvalidArgument, TypeError or ValueError if it is not a choice among ``models``.
    """
    if not isinstance(choice, Choice) or not choice.models or len(choice.models) != len(choice.shares):
        raise InvalidArgument(f"it returned {choice!r}: expected a Choice of models, with a share for each")
    shares = {str(model): float(share) for model, share in zip(choice.models, choice.shares)}
    if shares.keys() - set(models) or len(shares) != len(choice.models):
        raise InvalidArgument(f"it chose {choice.models}: expected some of {models}, each once")
    _check_shares(choice, list(shares.values()))
    chosen = tuple(model for model in models if model in shares)
    return Choice(chosen, tuple(shares[model] for model in chosen), _checked_beliefs(choice, len(models)))


def _checked_beliefs(choice: Choice, models: int) -> tuple[tuple[float, float], ...] | None:
    """Check the beliefs of a policy that draws as ``Thompson`` does. Without them, a share of 1 means certainty."""
    if choice.beliefs is None:
        return None
    beliefs = tuple((float(successes), float(failures)) for successes, failures in choice.beliefs)
    is_right = all(0.0 < parameter < math.inf for belief in beliefs for parameter in belief)
    if len(choice.models) != 1 or len(beliefs) != models or not is_right:
        raise InvalidArgument(
            f"it returned beliefs {choice.beliefs}: expected two numbers above 0 for each of the {models} models, "
            "and one chosen model"
        )
    return beliefs


def checked_further(further: object, choice: Choice, outlook: Outlook) -> Choice:
    """Return ``further`` with the models of ``choice`` first, then the other models for which there is time.

    Raises InvalidArgument, TypeError or ValueError if it is not a choice of these models and others.
    """
    if not isinstance(further, Choice) or len(further.models) != len(further.shares):
        raise InvalidArgument(f"it returned {further!r}: expected None, or a Choice of models, with a share for each")
    shares = {str(model): float(share) for model, share in zip(further.models, further.shares)}
    before, others = set(choice.models), outlook.expected_s
    if not before <= shares.keys() <= before | others.keys() or len(shares) != len(further.models):
        raise InvalidArgument(
            f"it went on to {further.models}: expected {choice.models}, followed by some of {tuple(others)}, each once"
        )
    steps = tuple(map(_checked_step, further.steps))
    asked = [model for model in others if model in shares and outlook.has_time_for(model)]
    if not asked:
        return Choice(choice.models, choice.shares, choice.beliefs, steps=steps)
    _check_shares(further, list(shares.values()))
    models = (*choice.models, *asked)
    total = sum(shares[model] for model in models)
    if total <= 0:  # there is no time for any model with a share
        return Choice(models, (1.0 / len(models),) * len(models), steps=steps)
    return Choice(models, tuple(shares[model] / total for model in models), steps=steps)


def _checked_step(step: object) -> Step:
    if not isinstance(step, Step):
        raise InvalidArgument(f"it returned a step {step!r}: expected a Step")
    checked = Step(int(step.asked), float(step.confidence), float(step.probability))
    if not (checked.asked >= 1 and 0.0 <= checked.confidence <= 1.0 and 0.0 <= checked.probability <= 1.0):
        raise InvalidArgument(f"it returned {step}: expected at least 1 model, and numbers from 0 to 1")
    return checked


def checked_combined(combined: object) -> Combined:
    """Return ``combined`` with a plain float.

    Raises InvalidArgument, TypeError, ValueError or msgspec.DecodeError if it is not JSON text with a confidence.
    """
    if not isinstance(combined, Combined) or not isinstance(combined.output, bytes):
        raise InvalidArgument(f"it returned {combined!r}: expected a Combined of JSON text as bytes and a confidence")
    combined.output.decode()
    _check_json(combined.output)
    confidence = float(combined.confidence)
    if not 0.0 <= confidence <= 1.0:
        raise InvalidArgument(f"it returned a confidence of {combined.confidence!r}: expected 0 to 1")
    return Combined(combined.output, confidence)


def _check_shares(choice: Choice, shares: Sequence[float]) -> None:
    if len(shares) == 1:
        is_right = 0.0 < shares[0] <= 1.0 + _ROUNDING
    else:
        is_right = all(share >= 0.0 for share in shares) and math.isclose(sum(shares), 1.0, abs_tol=_ROUNDING)
    if not is_right:
        raise InvalidArgument(
            f"it returned shares {choice.shares}: expected a probability above 0 for one chosen model, or weights of "
            "several that add up to 1"
        )
