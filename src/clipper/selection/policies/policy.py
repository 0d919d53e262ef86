"""The interface of selection policies: which models to ask, how to combine their outputs, how to learn from feedback.

The shape is that of the paper's Listing 2 (select, combine, observe), with one difference: a policy's state is a set of
named numbers, and ``observe`` returns increments to them, never a new state. Increments commute, so several workers and
machines can learn into one state by adding, and none of their feedback is lost.

A policy holds only its parameters. It is called on the event loop for each query, so it must be quick: what can be
computed once for a state belongs in ``totals.memo``.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from random import Random
from typing import Literal, Protocol

import msgspec

from clipper.control.descriptions import Standing
from clipper.selection.learning.ledger import DEFAULT_HALF_LIFE
from clipper.selection.learning.tally import Increments
from clipper.selection.learning.totals import Totals
from clipper.selection.policies.combine import Combined, vote, vote_is_settled
from clipper.selection.policies.query_view import JudgedQuery, QueryView

__all__ = [
    "Choice",
    "Combined",
    "Increments",
    "JudgedQuery",
    "Outlook",
    "Policy",
    "QueryView",
    "Standing",
    "Step",
    "Totals",
]


class Step(msgspec.Struct, frozen=True, gc=False):
    """A decision of ``next``.

    Attributes:
        asked: number of models that had been asked by then.
        confidence: confidence of their answer, 0 to 1.
        probability: probability of asking a further model; 0 if there was no time for one.
    """

    asked: int
    confidence: float
    probability: float


class Outlook(msgspec.Struct, frozen=True, gc=False):
    """The options that are left for a query.

    Attributes:
        left_s: time until it must be answered.
        expected_s: for each model that it has not asked, in the application's order: the time within which nine of ten
            of its recent answers to this application came; 0 if that is unknown, or must be measured again.
    """

    left_s: float
    expected_s: Mapping[str, float]

    def has_time_for(self, model: str) -> bool:
        """Whether a model is expected to answer in time. Others are not asked, even if ``next`` says so."""
        return self.expected_s.get(model, math.inf) < self.left_s


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The models that a query asks, at least one, in the application's order; then those that ``next`` has added, in
    the order of asking.

    Attributes:
        shares: one for each model. If one model is chosen, its probability; if several are asked, their weights in the
            answer, which add up to 1.
        beliefs: used if the probability has no closed form: the two parameters of the Beta distribution that was drawn
            from for each of the application's models, of which the highest draw was chosen. The share is then the
            probability that the choice was made so: 1, or less while there are newcomers.
        among: the models that it was chosen among, if learning depends on them, or there are beliefs.
        steps: the decisions of ``next``, if it reports them.
    """

    models: tuple[str, ...]
    shares: tuple[float, ...]
    beliefs: tuple[tuple[float, float], ...] | None = None
    among: tuple[str, ...] | None = None
    steps: tuple[Step, ...] = ()


class Policy(Protocol):
    """Subclass this and write ``select``; the rest is for policies that need it.

    Attributes:
        feedback: the outputs that feedback is scored on: ``selected``, those of the models that the query asked; or
            ``all`` of the application's, which are then asked for feedback if they had not been.
        learns: whether ``select`` or ``combine`` reads the state; if not, no state is read for a query's context.
        keeps_input: whether ``observe`` reads the query's input, which is then kept until the query's feedback.
        needs_features: for Clipper's own: whether queries must bring features.
        default_half_life: for Clipper's own: the half-life in observations, if none is set.
        goes_by: for Clipper's own: what a choice may depend on beside what was learned over all queries: ``nothing``,
            also if it asks all models each time; the ``context`` and what was learned in it; or the ``query``.
    """

    feedback: Literal["selected", "all"] = "selected"
    learns: bool = True
    keeps_input: bool = False
    needs_features: bool = False
    default_half_life: int | None = DEFAULT_HALF_LIFE
    goes_by: Literal["nothing", "context", "query"] = "context"

    @abstractmethod
    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        """Return which of ``models`` to ask.

        Args:
            models: the application's models, at least one, in the order of their links.
            totals: the state of this application and context.
            query: the query's context, features and input.
            random: the only source of randomness.
        """
        ...

    def next(
        self,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
        query: QueryView,
        outlook: Outlook,
        random: Random,
    ) -> Choice | None:
        """Choose further models, after the asked ones have answered or are not worth waiting for any more.

        It is called again after those, until it adds none or none is left: a query asks each model at most once. If the
        last models miss the deadline, ``combine`` makes the answer from the outputs so far.

        Args:
            choice: the models asked so far.
            outputs: JSON text by model, of those that have answered; may be empty.
            totals: as in ``select``.
            query: as in ``select``.
            outlook: the time that is left, and the time that each further model is expected to need.
            random: as in ``select``.

        Returns:
            ``choice`` with further models after its own, and a share for each. None, or ``choice`` with only a further
            step, makes the answer. The default is None.
        """
        return None

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        """Make one answer. The default is a vote of the models by their shares.

        Args:
            choice: the models that were asked.
            outputs: JSON text by model, of those of ``choice.models`` that answered in time; at least one.
            totals: as in ``select``.
            query: as in ``select``.
        """
        return vote(choice.models, choice.shares, outputs)

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        """Whether no missing output can change ``combine``'s output, or whether its confidence is enough.

        The default is False for a policy that overrides ``combine``.

        Args:
            choice: the models that were asked.
            outputs: the outputs so far; at least one.
            lost: selected models that have failed.
            threshold: the application's confidence threshold, 0 if none.
        """
        votes = type(self).combine is Policy.combine
        return votes and vote_is_settled(choice.models, choice.shares, outputs, lost, threshold)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return increments to the state's numbers, by model and name. The default is none.

        Each model's ``pulls``, ``scored`` and ``loss`` are counted for every policy.

        Args:
            choice: what ``select`` returned for the query that the feedback is on.
            losses: in [0, 1], by model, for the models whose output is known; may include models that were not
                selected.
            totals: as in ``select``.
            query: as in ``select``, with the outputs and the label; its input is None unless ``keeps_input``.
        """
        return {}

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """The same for a reward of an answer that several models contributed to. The default calls ``observe``.

        Args:
            losses: of the models whose output was the answer, all the same, and of those without an output. A model
                with another output is missing: what its output would have earned is unknown.
        """
        return self.observe(choice, losses, totals, query)

    def standing(self, models: tuple[str, ...], totals: Totals) -> Standing | None:
        """Return the state of the policy's test; None if the policy is not a test."""
        return None
