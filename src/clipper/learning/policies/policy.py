"""The interface of selection policies: which models to ask, how to combine their outputs, how to learn from feedback.

The shape is that of the paper's Listing 2 (select, combine, observe), with one difference: a policy's state is a set of
named numbers, and ``observe`` returns increments to them, never a new state. Increments commute, so several workers and
machines can learn into one state by adding, and none of their feedback is lost.

A policy holds only its parameters. It is called on the event loop for each query, so it must be quick: what can be
computed once for a state belongs in ``totals.memo``.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clipper.control.descriptions import Standing
from clipper.learning.mathematics.ledger import DEFAULT_HALF_LIFE
from clipper.learning.mathematics.totals import LOSS, SCORED, Increments, Totals
from clipper.learning.policies.combine import Combined, vote, vote_is_settled
from clipper.values.inputs.numbers import NUMPY
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, ValueType
from clipper.values.types import DType, InputType

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


Features = NDArray[np.float64]

# A model with at least this chance to answer in time counts as sure to.
SURE = 0.95
# Below this chance an answer would wait for a model in vain, more often than not.
LEAST_CHANCE = 0.5
# Below this chance a query does not go on to a further model. It is lower, since the query has an answer already.
LEAST_FURTHER = 0.1
# Without feedback, how much worse in loss each link is assumed to be than the one before, so the first one is asked
# down to a chance of about a third; and the most that the last of many is. With equal steps the time of a shared device
# goes to a middle link if each takes half as long as the one before, and not in halves to the first and the last.
LATER_LOSS, MOST_LOSS = 0.1, 0.5
# This order weighs as much as so many labels of each model. The deviation of the loss of a model without any
# is then about two steps, so that a better model behind worse ones is still tried.
ORDER_LABELS = 5.0

FEATURE = np.dtype("<f8")
_DIMENSION = np.dtype("<u4")


class QueryView(msgspec.Struct, frozen=True, gc=False):
    """A query's data, for its policy.

    Attributes:
        context: the user, session or other group of the query; None if it named none.
        packed_features: the features' raw buffer, as in the decision log; read ``features`` instead.
        row: the input's raw buffer, as containers get it; read ``input`` instead.
        input_type: the type of the row.
        in_time: by model, the probability that it answers by the query's deadline if it is asked now; None, as mostly,
            if all surely do. Read ``chance`` instead.
    """

    context: str | None = None
    packed_features: bytes | None = None
    row: bytes | None = None
    input_type: ValueType | None = None
    in_time: Mapping[str, float] | None = None

    def chance(self, model: str) -> float:
        """Return the probability that a model answers by the query's deadline if it is asked now."""
        return 1.0 if self.in_time is None else self.in_time.get(model, 1.0)

    @property
    def features(self) -> Features | None:
        """The features as read-only float64 of shape (d,); None if the query brought none."""
        return None if self.packed_features is None else np.frombuffer(self.packed_features, FEATURE)

    @property
    def input(self) -> Any:
        """The input: a read-only array of the application's dtype and shape, a str or bytes, or of a record a dict of
        these by field, with numbers for scalars and None for what is missing; None if it is not kept.

        It is decoded at each access: keep it if you need it twice.
        """
        if self.row is None or self.input_type is None:
            return None
        return decode_row(self.row, self.input_type)


class JudgedQuery(QueryView, frozen=True, gc=False):
    """A query, or an input, with feedback.

    Attributes:
        outputs: JSON text by model, of all known outputs, including late ones and those asked for the feedback; null in
            place of one that is too large.
        label: JSON text of the right output; None if there was a reward instead.
    """

    outputs: Mapping[str, bytes] = {}
    label: bytes | None = None


def as_features(row: bytes, input_type: InputType) -> bytes:
    """Return the features' raw buffer of a numeric input that is the features: the row itself if it is float64."""
    if input_type.dtype is DType.FLOAT64:
        return row
    return np.frombuffer(row, NUMPY[input_type.dtype]).astype(FEATURE).tobytes()


def decode_row(row: bytes, input_type: ValueType) -> Any:
    """Decode a row.

    Raises:
        ValueError: the row is not of that type.
    """
    if isinstance(input_type, RecordType):
        values = RecordRows(input_type).values(row)
        return {
            field.name: decode_row(value, field.type) if isinstance(value, bytes) else value
            for field, value in zip(input_type.fields, values)
        }
    if input_type.dtype is DType.STRING:
        return row.decode()
    if input_type.dtype is DType.BYTES:
        return row
    start = input_type.leading_dimensions * _DIMENSION.itemsize
    numbers = np.frombuffer(row, NUMPY[input_type.dtype], offset=start)
    if start:
        return numbers.reshape(np.frombuffer(row, _DIMENSION, input_type.leading_dimensions))
    return numbers if None in input_type.shape else numbers.reshape(tuple(size or 0 for size in input_type.shape))


class Step(msgspec.Struct, frozen=True, gc=False):
    """A decision of ``next``.

    Attributes:
        asked: the number of models that had been asked by then.
        confidence: the confidence of their answer, 0 to 1.
        probability: the probability of asking a further model; 0 if there was no time for it.
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
        in_time: for each of these models, the probability that it answers by then if it is asked now, by what waits for
            it; None if that is not known.
    """

    left_s: float
    expected_s: Mapping[str, float]
    in_time: Mapping[str, float] | None = None

    def has_time_for(self, model: str) -> bool:
        """Whether a model is expected to answer in time. Others are not asked, even if ``next`` says so."""
        if self.in_time is not None and self.in_time.get(model, 1.0) < LEAST_FURTHER:
            return False
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


def in_order_of_links(models: int) -> list[float]:
    """Return losses for so many models of which nothing but the order of their links is known."""
    step = min(LATER_LOSS, MOST_LOSS / max(models - 1, 1))
    return [step * place for place in range(models)]


class Policy(Protocol):
    """Subclass this and write ``select``; the rest is for policies that need it. Parameters mean the same in all.

    Clipper's own raise InvalidArgument if they are made with a parameter outside of its range.

    Attributes:
        feedback: the outputs that feedback is scored on: ``selected``, those of the models that the query asked; or
            ``all`` of the application's, which are then asked for feedback if they had not been.
        learns: whether ``select`` or ``combine`` reads the state. Otherwise no state is read for a query's context.
        keeps_input: whether ``observe`` reads the query's input, which is then kept until the query's feedback.
        needs_features: for Clipper's own policies: whether queries must bring features.
        default_half_life: for Clipper's own policies: the half-life in observations, if none is set.
        weighs_time: whether ``select`` itself uses ``QueryView.in_time``. Any other of Clipper's own selects among
            fewer models if some will hardly answer in time: see ``candidates``. A user's own gets all models.
        has_budget: for Clipper's own policies: whether a budget may decide among which models ``select`` selects.
        goes_by: for Clipper's own policies: what a choice may depend on, beside the state over all queries.
            ``nothing``, also if all models are asked each time; the ``context`` and its state; or the whole ``query``.
    """

    feedback: Literal["selected", "all"] = "selected"
    learns: bool = True
    keeps_input: bool = False
    needs_features: bool = False
    default_half_life: int | None = DEFAULT_HALF_LIFE
    weighs_time: bool = False
    has_budget: bool = False
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

    def expected_losses(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        """Return each model's expected loss on this query if it answers in time, (models,).

        By default that is the mean of a Beta posterior, for all queries alike. Its prior counts as ``ORDER_LABELS`` and
        has the models in the order of their links, at the level that all feedback shows. So without feedback the order
        decides, with a little it fills in what is not known yet, and with much it no longer matters.
        """
        losses: Sequence[float] | None = totals.memo.get((self, "expected losses", models))
        if losses is None:
            steps = in_order_of_links(len(models))
            known = [(totals.number(model, SCORED), totals.number(model, LOSS)) for model in models]
            labels = sum(times for times, _ in known)
            first = sum(lost - times * step for (times, lost), step in zip(known, steps)) / (labels + ORDER_LABELS)
            losses = [
                (lost + ORDER_LABELS * min(max(first + step, 0.0), 1.0)) / (times + ORDER_LABELS)
                for (times, lost), step in zip(known, steps)
            ]
            totals.memo[self, "expected losses", models] = losses
        return losses

    def loss_errors(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        """Return the standard error of each of ``expected_losses``, (models,).

        By default that is the deviation of the posterior of a loss of 0 or 1, less as long as there is little feedback,
        of which to hope for more: without any, the order of the links is believed. It is 0 for a policy that does not
        learn.
        """
        errors: Sequence[float] | None = totals.memo.get((self, "loss errors", models))
        if errors is None:
            losses = self.expected_losses(models, totals, query)
            scored = [totals.number(model, SCORED) for model in models]
            share = self.learns * sum(scored) / (sum(scored) + ORDER_LABELS)
            errors = [
                share * math.sqrt(max(loss * (1.0 - loss), 0.0) / (times + ORDER_LABELS + 1.0))
                for loss, times in zip(losses, scored)
            ]
            totals.memo[self, "loss errors", models] = errors
        return errors

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
            outlook: the time that is left, and the time that each further model is expected to need.

        Returns:
            ``choice`` with further models after its own, and a share for each. None, or ``choice`` with only a further
            step, makes the answer. The default is None.
        """
        return None

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        """Make an answer. The default is a vote of the models by their shares.

        Args:
            choice: the models that were asked.
            outputs: JSON text by model, of those of ``choice.models`` that answered in time; at least one.
        """
        return vote(choice.models, choice.shares, outputs)

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        """Whether no missing output can change ``combine``'s output, or whether its confidence is enough.

        The default is False for a policy that overrides ``combine``.

        Args:
            choice: the models that were asked.
            outputs: the outputs so far; at least one.
            lost: the selected models that have failed.
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
            query: as in ``select``, with the outputs and the label; its input is None unless ``keeps_input``.
        """
        return {}

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """Return the increments for a reward of an answer by several models. The default calls ``observe``.

        Args:
            losses: the losses of the models whose output was the answer, which are equal, and of those without an
                output. A model with another output is missing: nobody knows what its output would have earned.
        """
        return self.observe(choice, losses, totals, query)

    def standing(self, models: tuple[str, ...], totals: Totals) -> Standing | None:
        """Return the state of the policy's test; None if the policy is not a test."""
        return None
