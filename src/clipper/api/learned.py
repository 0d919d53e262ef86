"""Schemas of what an application has learned: about its models, its newcomers and its test."""

from msgspec import Struct


class Newcomer(Struct, frozen=True):
    """A version that is new to an application: ramped, or stopped.

    Attributes:
        before: the version that its link asked before and still asks; None if the newcomer has a link of its own.
        share: its share of the queries.
        feedback, rest_feedback: the number of answers with feedback that it had a part in, and of others since; if it
            was stopped, until then.
        enough_feedback: how many of its own answers need feedback before it is let through.
        mean_loss, rest_mean_loss: the mean losses of these answers; None while there are none.
        compared: how many of its answers the means are about, if the policy chooses by context: answers to queries for
            which the policy would ask it, or asks ``before``. None means all.
        stopped: why it is no longer asked; None while it is ramped.
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
        enough_answers: the number of answers after which it is no longer watched, unless it fails more by then.
        compared, failed: its queries that are compared, and how many of them failed or were late.
        rest_compared, rest_failed: the same for the version before, or for all other versions.
        last_error: why its last failed query failed; None if no query did.
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
