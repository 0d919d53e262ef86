"""What the management API shows of what an application has learned: its models, its newcomers and its test."""

from msgspec import Struct


class Newcomer(Struct, frozen=True):
    """A version that is new to an application: ramped, or stopped.

    Attributes:
        before: the version that its link asked before and still asks; None if the newcomer has a link of its own.
        share: of the queries that it gets.
        feedback, rest_feedback: answers with feedback that it had a part in, and other answers with feedback since;
            of one that was stopped, until then.
        enough_feedback: how many of its own answers need feedback before it is let through.
        mean_loss, rest_mean_loss: of these answers; None while there are none.
        compared: how many of its answers the means are of, if the policy chooses by context: those to queries for which
            the policy would ask it, or asks ``before``. None is all.
        stopped: why it is not asked any more; None while it is ramped.
    """

    model: str
    version: str
    before: str | None
    share: float
    feedback: int
    rest_feedback: int
    enough_feedback: int
    mean_loss: float | None
    rest_mean_loss: float | None
    stopped: str | None
    compared: int | None = None


class Watched(Struct, frozen=True):
    """A version that answers all queries of its link, and is stopped if it fails more than the version before.

    Attributes:
        before: the version that the link asked before; None if the version has a link of its own.
        answers: queries that it has ended, with or without an output, after its first ten seconds.
        enough_answers: after so many it is watched no more, unless it fails more by then.
        compared, failed: queries that are compared, and how many of them failed or were late.
        rest_compared, rest_failed: the same of the version before, or of all others.
        last_error: why one of its queries failed; None if none did.
    """

    model: str
    version: str
    before: str | None
    answers: int
    enough_answers: int
    compared: int
    failed: int
    rest_compared: int
    rest_failed: int
    last_error: str | None
