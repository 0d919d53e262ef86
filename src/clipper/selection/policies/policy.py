"""What a selection policy is: which models to ask, how to make one answer of theirs, what feedback teaches.

The shape is that of the paper's Listing 2 (select, combine, observe), with one difference: a policy's state is a set of
named numbers, and ``observe`` returns increments to them, never a new state. Increments commute, so several
workers and machines can learn into one state by adding, and none of their feedback is lost.

A policy holds its parameters and nothing else. It is called on the event loop for each query, so it must be quick:
what can be worked out once from a state belongs into ``totals.memo``.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from random import Random
from typing import Literal, Protocol

import msgspec

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
    """What ``next`` made of a query's outputs.

    Attributes:
        asked: how many models had been asked by then.
        confidence: in what they had answered, 0 to 1.
        probability: of going on to a further model; 0 where there was no time for one.
    """

    asked: int
    confidence: float
    probability: float


class Outlook(msgspec.Struct, frozen=True, gc=False):
    """What can still be done for a query.

    Attributes:
        left_s: until it has to be answered.
        expected_s: by model, of those that it has not asked, in the application's order: within what nine of ten of its
            last answers to this application came; 0 where that is not known, or is to be found out anew.
    """

    left_s: float
    expected_s: Mapping[str, float]

    def has_time_for(self, model: str) -> bool:
        """Whether a model is expected to answer in time. Others are not asked, whatever ``next`` says."""
        return self.expected_s.get(model, math.inf) < self.left_s


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The models that a query asks, in the application's order; at least one. Behind them, in the order in which they
    were asked, those that ``next`` has added.

    Attributes:
        shares: one a model. Where one model is chosen, the probability that it was; where several are asked, the weight
            of each in the answer, adding up to 1.
        beliefs: where the probability has no closed form: the two parameters of the Beta distribution that was drawn
            from for each of the application's models, of which the highest was chosen. The share is then the
            probability that it was to be decided so: 1, or less while there are newcomers.
        among: where what is learned depends on it: the models that it was chosen among.
        steps: what ``next`` has decided, where it tells.
    """

    models: tuple[str, ...]
    shares: tuple[float, ...]
    beliefs: tuple[tuple[float, float], ...] | None = None
    among: tuple[str, ...] | None = None
    steps: tuple[Step, ...] = ()


class Standing(msgspec.Struct, frozen=True):
    """How a test stands that ends itself.

    Attributes:
        winner: the model that was found to be the best; None while the test is open.
        confidence: of the test, of which a winner is the best one but for ``tolerance`` of mean loss.
        observations: how much feedback the test has taken.
    """

    winner: str | None
    confidence: float
    tolerance: float
    observations: float


class Policy(Protocol):
    """Subclass this and write ``select``; the rest is for policies that need it.

    Attributes:
        feedback: whose outputs feedback is scored on: ``selected``, the models that the query asked; or ``all`` of the
            application's, which are then asked for it where they had not been.
        learns: whether ``select`` or ``combine`` reads the state; if not, none is fetched for a query's context.
        keeps_input: whether ``observe`` reads the query's input, which is then kept with the query until its feedback.
        needs_features: of one of Clipper's own: whether it can do without.
        default_half_life: of one of Clipper's own: after how many observations one counts half, where nobody says.
    """

    feedback: Literal["selected", "all"] = "selected"
    learns: bool = True
    keeps_input: bool = False
    needs_features: bool = False
    default_half_life: int | None = DEFAULT_HALF_LIFE

    @abstractmethod
    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        """Return which of ``models`` to ask.

        Args:
            models: the application's, at least one, in the order in which they were linked.
            totals: what the state of this application and context holds.
            query: what it brings: its context, features and input.
            random: the only source of chance.
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
        """Ask further models, now that those which were asked have answered, or are not worth waiting for any more.

        It is called again after those, until it adds none, or none is left: each model is asked once a query at most.
        If the last models miss the deadline, ``combine`` makes the answer of what has come.

        Args:
            choice: what has been asked.
            outputs: JSON text by model, of those that have answered; may be empty.
            query: as in ``select``.
            outlook: how much time is left, and what each further model is expected to need.

        Returns:
            ``choice`` with further models behind its own, and a share of each; or with a further step alone, and then
            the answer is made, as it is for None. Unless overridden, None.
        """
        return None

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        """Make one answer; unless overridden, the one that most of the models gave, by their shares.

        Args:
            outputs: JSON text by model, of those of ``choice.models`` that answered in time; at least one.
            query: as in ``select``.
        """
        return vote(choice.models, choice.shares, outputs)

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        """Whether what is missing can change neither ``combine``'s output nor whether its confidence is enough.

        A policy that makes the answer in a way of its own says no unless it overrides this, too.

        Args:
            outputs: those that have come; at least one.
            lost: selected models that have failed.
            threshold: the confidence that the application asks for, 0 if none.
        """
        votes = type(self).combine is Policy.combine
        return votes and vote_is_settled(choice.models, choice.shares, outputs, lost, threshold)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return what to add to the state's numbers, by model and name; unless overridden, nothing.

        What every policy's state holds is counted anyway: each model's ``pulls``, ``scored`` and ``loss``.

        Args:
            choice: what ``select`` returned for the query that the feedback is on.
            losses: in [0, 1], by model, of those whose output is known; it may hold others than were selected.
            query: as in ``select``, with the outputs and the label; its input is None unless ``keeps_input``.
        """
        return {}

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """The same for a reward of an answer that several models had a part in; unless overridden, as ``observe``.

        Args:
            losses: of the models whose output was the answer, all the same, and of those that gave none. A model that
                gave another output is not in it: what that would have earned is not known.
        """
        return self.observe(choice, losses, totals, query)

    def standing(self, models: tuple[str, ...], totals: Totals) -> Standing | None:
        """How its test stands; None of a policy that is none."""
        return None
