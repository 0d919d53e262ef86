"""How sure an application is of its answers: what that is made of, and what feedback says that it is worth."""

from typing import Protocol

import msgspec

from clipper.control.feedback import Feedback
from clipper.control.messages import ConfidenceBin, Reliability
from clipper.selection.contexts import Contexts
from clipper.selection.learning.arms import Arms
from clipper.selection.learning.calibration import BASES, Basis, Curve, bins, expected_error, lesson
from clipper.selection.learning.losses import Log, Loss, ZeroOne
from clipper.selection.learning.probabilities import read_claim
from clipper.selection.learning.tally import Increments
from clipper.selection.learning.totals import Totals
from clipper.selection.policies.policy import Choice, Combined
from clipper.settings.application import Selection

# A curve is fitted again once so large a share of the answers behind it is new. It takes 0.15 ms: with a query after
# each of a thousand pieces of feedback a second, a seventh of a worker's time would go into it.
REFIT_SHARE = 0.01
# Whose answer it is where several models were asked.
SEVERAL = ""


class Answered(Protocol):
    """A query that was answered: see ``selection.query.Query``."""

    output: bytes | None
    confidence: float


class Said(msgspec.Struct, frozen=True, gc=False):
    """What an application's models have answered, believed or not, and how sure they seem.

    Attributes:
        answer: JSON text.
        model: whose it is; ``SEVERAL`` if that many were asked.
        basis: what ``confidence`` is.
        confidence: the raw one.
    """

    answer: bytes
    model: str
    basis: Basis
    confidence: float


class _Fitted:
    """``changes``: how often the state has changed since the curve was fitted, ``totals`` the last of them."""

    __slots__ = ("changes", "curve", "totals")

    def __init__(self, curve: Curve, totals: Totals) -> None:
        self.curve = curve
        self.totals = totals
        self.changes = 0


class Confidences:
    """Makes an application's confidences, where they are not simply as its policy says.

    What calibrates them is the application's, over all contexts: it is of a model more than of whom it is asked for,
    and each context by itself has too little feedback to tell.

    Args:
        loss: the application's. 1 minus the loss is how right an answer is; under ``log``, which is of all that an
            output says and not of what it decides for, it is whether that is the label.
        contexts: what it has learned.
    """

    def __init__(self, selection: Selection, loss: Loss, contexts: Contexts) -> None:
        self.calibrates = selection.calibrate
        self._reads_probabilities = selection.confidence_from == "probabilities"
        self._loss = ZeroOne() if isinstance(loss, Log) else loss
        self._contexts = contexts
        self._fitted: dict[tuple[str, str], _Fitted] = {}

    def say(self, choice: Choice, combined: Combined) -> Said:
        """What the models have answered."""
        model = choice.models[0] if len(choice.models) == 1 else SEVERAL
        claim = read_claim(combined.output) if self._reads_probabilities else None
        if claim is None:
            return Said(combined.output, model, "agreement", combined.confidence)
        return Said(combined.output, model, "probability", claim.probability)

    def confidence(self, said: Said, arms: Arms) -> float:
        """The confidence to answer.

        Args:
            arms: which versions were asked. Of one that the links do not lead to now, as a query may have named it,
                the raw confidence is answered: what is known of it is not at hand.
        """
        if not self.calibrates or arms.key(said.model) != self._contexts.arms.key(said.model):
            return said.confidence
        return self._curve(said.model, said.basis).calibrated(said.confidence)

    def least_share(self, threshold: float) -> float | None:
        """From which share of several models that agree on its answer is believed; None where that does not tell."""
        if self._reads_probabilities:
            return None
        return self._curve(SEVERAL, "agreement").least_raw(threshold) if self.calibrates else threshold

    def taught(self, feedback: Feedback, said: Said, arms: Arms, query: "Answered | None" = None) -> Increments:
        """What feedback adds to the application's state, by version and name.

        Args:
            query: the one that was answered; None of feedback on an input, whose answer would be ``said`` now.

        Raises:
            InvalidArgument: the label cannot be compared with the answer.
            PolicyFailed: the user's own loss failed.
        """
        if feedback.label is not None:
            right = 1.0 - self._loss(said.answer, feedback.label)
        elif feedback.reward is not None and (query is None or query.output is not None):
            right = feedback.reward
        else:  # a reward for the default, which says nothing of what the models answered
            return {}
        answered = self.confidence(said, arms) if query is None else query.confidence
        return arms.keyed(lesson(said.model, said.basis, said.confidence, answered, right))

    def reliability(self, models: tuple[str, ...]) -> tuple[Reliability, ...]:
        """Of each model and kind of confidence that there was feedback on; of none if nothing is calibrated."""
        if not self.calibrates:
            return ()
        numbers = self._contexts.prior().numbers
        found = []
        for model in (*models, SEVERAL):
            for basis in BASES:
                raw, answered = bins(numbers, model, basis), bins(numbers, model, basis, "answered")
                if not raw or not answered:
                    continue
                curve = self._curve(model, basis)
                found.append(
                    Reliability(
                        model or None,
                        basis,
                        tuple(
                            ConfidenceBin(each.answers, each.confidence, each.right, curve.calibrated(each.confidence))
                            for each in raw
                        ),
                        tuple(ConfidenceBin(each.answers, each.confidence, each.right) for each in answered),
                        expected_error(raw),
                        expected_error(answered),
                    )
                )
        return tuple(found)

    def answered_error(self, models: tuple[str, ...]) -> float | None:
        """The expected calibration error of all that was answered; None if there was no feedback, or no calibration."""
        if not self.calibrates:
            return None
        numbers = self._contexts.prior().numbers
        found = [
            each for model in (*models, SEVERAL) for basis in BASES for each in bins(numbers, model, basis, "answered")
        ]
        return expected_error(found) if found else None

    def _curve(self, model: str, basis: Basis) -> Curve:
        totals = self._contexts.prior()
        fitted = self._fitted.get((model, basis))
        if fitted is not None and fitted.totals is not totals:
            fitted.totals = totals
            fitted.changes += 1
        if fitted is None or fitted.changes > fitted.curve.answers * REFIT_SHARE:
            fitted = self._fitted[model, basis] = _Fitted(Curve(bins(totals.numbers, model, basis)), totals)
        return fitted.curve
