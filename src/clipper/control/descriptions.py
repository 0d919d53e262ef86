"""An application's learned state, as workers describe it and operators see it."""

from msgspec import Struct


class Standing(Struct, frozen=True):
    """The state of a test that ends by itself, such as the policy ``best_arm``.

    Attributes:
        winner: the model that was found to be the best; None while the test is open.
        confidence: the confidence that the winner is the best model, within ``tolerance`` of mean loss.
        observations: how many pieces of feedback count in the test.
    """

    winner: str | None
    confidence: float
    tolerance: float
    observations: float


class ModelDescription(Struct, frozen=True):
    """The facts about a model of an application.

    Attributes:
        share: its share of the queries now. If several models answer together, its share of the answer; if models are
            asked one after another, its share of the queries with feedback.
        mean_loss: from 0 to 1; None without feedback on the model.
        pulls, scored: how often it was asked, and how often feedback scored it; old queries count for less.
        version: the version that the numbers belong to, including what it inherited; None if no version is current.
        cost: the cost of asking it; None if it is not known.
        threshold: in a cascade, the confidence of this model below which the next model is asked.
        in_time: share of its latest queries, in the worker that describes it, that it answered by the deadline; None
            before the first, or if it is not chosen among others.
        chance: the probability that it answers in time if it is asked now; None likewise.
    """

    model: str
    share: float
    mean_loss: float | None
    pulls: float
    scored: float
    shadow: bool = False
    version: str | None = None
    cost: float | None = None
    threshold: float | None = None
    in_time: float | None = None
    chance: float | None = None


class ConfidenceBin(Struct, frozen=True):
    """Answers of about one confidence.

    Attributes:
        answers: how many of them had feedback; old answers count for less.
        right: the share of these that was right; with losses between 0 and 1, 1 minus the mean loss.
        calibrated: the confidence that is now answered for this raw confidence.
    """

    answers: float
    confidence: float
    right: float
    calibrated: float | None = None


class Reliability(Struct, frozen=True):
    """The shares of an application's answers that were right, by raw confidence and by answered confidence.

    Attributes:
        model: the model that gave the answers; None if several models made each answer.
        basis: the kind of raw confidence: ``agreement``, the share of the models that agree, or ``probability``, which
            the answer contains.
        raw_error, answered_error: the expected calibration errors: a bin's mean difference between confidence and share
            of right answers.
    """

    model: str | None
    basis: str
    raw: tuple[ConfidenceBin, ...]
    answered: tuple[ConfidenceBin, ...]
    raw_error: float
    answered_error: float


class EndedRamp(Struct, frozen=True):
    """The ramp of a version that was let through: since then it has the share that the policy gives it.

    Attributes:
        ended_at: seconds since the epoch.
        feedback, rest_feedback: the number of answers with feedback that it had a part in, and of others meanwhile.
        mean_loss, rest_mean_loss: the mean losses of these answers; None if there were none.
        compared: how many of its answers the means are about: see ``RampOutcome``.
    """

    model: str
    version: str
    ended_at: float
    feedback: int
    rest_feedback: int
    mean_loss: float | None
    rest_mean_loss: float | None
    compared: int | None = None
