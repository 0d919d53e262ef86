"""Confidences of an application's answers: their source, and their calibration by feedback."""

from dataclasses import dataclass

import msgspec

from clipper.control.descriptions import ConfidenceBin, Reliability
from clipper.control.feedback import Feedback
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.calibration import BASES, Basis, Curve, bins, expected_error, lesson
from clipper.learning.mathematics.losses import Log, Loss, ZeroOne
from clipper.learning.mathematics.probabilities import read_claim
from clipper.learning.mathematics.totals import Keyed, Totals
from clipper.learning.policies.policy import Choice, Combined
from clipper.settings.application import Selection
from clipper.worker.selection.contexts import Contexts

# A curve is fitted again once this share of the answers behind it is new. A fit takes 0.15 ms: with a query after each
# of a thousand pieces of feedback a second, fitting each time would take a seventh of a worker's time.
REFIT_SHARE = 0.01
# The model of an answer that several models made.
SEVERAL = ""


class Said(msgspec.Struct, frozen=True, gc=False):
    """The answer of an application's models, believed or not, and its raw confidence.

    Attributes:
        answer: JSON text.
        model: the model that made it; ``SEVERAL`` if several were asked.
        basis: the source of the confidence.
    """

    answer: bytes
    model: str
    basis: Basis
    confidence: float


@dataclass(slots=True, eq=False)
class _Fitted:
    """A fitted curve. ``changes`` counts the changes of state since the fit; ``totals`` is the latest state."""

    curve: Curve
    totals: Totals
    changes: int = 0


class Confidences:
    """Makes an application's confidences, if they are not simply the policy's.

    The calibration is the application's, over all contexts: confidence depends more on the model than on the context,
    and a context has too little feedback.

    Args:
        loss: the application's loss. An answer is right to the degree of 1 minus its loss. Under ``log``, which judges
            whole distributions, an answer is right if its label is.
    """

    def __init__(self, selection: Selection, loss: Loss, contexts: Contexts) -> None:
        self.calibrates = selection.calibrate
        self._reads_probabilities = selection.confidence_from == "probabilities"
        self._loss = ZeroOne() if isinstance(loss, Log) else loss
        self._contexts = contexts
        self._fitted: dict[tuple[str, str], _Fitted] = {}

    def say(self, choice: Choice, combined: Combined, answer: bytes | None = None) -> Said:
        """Return the models' answer with its raw confidence.

        Args:
            answer: the whole answer as JSON if the policy combined only one of its values: another value may be the
                probability.
        """
        model = choice.models[0] if len(choice.models) == 1 else SEVERAL
        claim = None
        if self._reads_probabilities:
            claim = read_claim(combined.output) or (None if answer is None else read_claim(answer))
        if claim is None:
            return Said(combined.output, model, "agreement", combined.confidence)
        return Said(combined.output, model, "probability", claim.probability)

    def confidence(self, said: Said, arms: Arms) -> float:
        """Return the confidence to answer with.

        Args:
            arms: the versions that were asked. For a version that no link leads to now, such as a version that a query
                named, the raw confidence is returned, since its curve is not in memory.
        """
        if not self.calibrates or arms.key(said.model) != self._contexts.arms.key(said.model):
            return said.confidence
        return self._curve(said.model, said.basis).calibrated(said.confidence)

    def least_share(self, threshold: float) -> float | None:
        """Return the share of agreeing models from which an answer is believed; None if agreement does not decide."""
        if self._reads_probabilities:
            return None
        return self._curve(SEVERAL, "agreement").least_raw(threshold) if self.calibrates else threshold

    def taught(self, feedback: Feedback, said: Said, arms: Arms, answered: float | None, *, is_default: bool) -> Keyed:
        """Return what feedback adds to the application's state, by version and name.

        Args:
            said: the answer that the feedback is on.
            answered: its confidence; None for feedback on an input, which would be answered with ``said`` now.
            is_default: whether the user got the default.

        Raises InvalidArgument if the label cannot be compared with the answer, and PolicyFailed if the user's own loss
        failed.
        """
        if feedback.label is not None:
            right = 1.0 - self._loss(said.answer, feedback.label)
        elif feedback.reward is not None and not is_default:
            right = feedback.reward
        else:  # a reward for the default says nothing about the models' answer
            return {}
        answered = self.confidence(said, arms) if answered is None else answered
        return arms.keyed(lesson(said.model, said.basis, said.confidence, answered, right))

    def reliability(self, models: tuple[str, ...]) -> tuple[Reliability, ...]:
        """Return the reliability of each model and basis with feedback; empty if the application does not calibrate."""
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
        """Return the expected calibration error of all answers; None without feedback or calibration."""
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
