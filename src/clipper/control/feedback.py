"""Feedback on queries, and its outcome, as frontend, selection and workers exchange it."""

from msgspec import Struct


class Feedback(Struct, frozen=True):
    """Feedback on a query, or on an input.

    Attributes:
        id: a name for the feedback, so that it counts once however often it is sent. Empty for feedback on an input
            without a name, which counts each time, and is not passed on.
        row: the input's raw buffer, if the feedback is on an input.
        label: JSON text of the right output; None if there is a reward instead.
        reward: in [0, 1], for the models that were selected.
        features: raw buffer of the float64 numbers that come with an input; a query has brought its own.
        step: the step of a pipeline that the feedback is on; None if it is on the whole answer. A worker from before
            this field was added takes such feedback for feedback on the whole answer.
    """

    id: str
    query_id: int | None = None
    row: bytes | None = None
    context: str | None = None
    label: bytes | None = None
    reward: float | None = None
    features: bytes | None = None
    step: str | None = None


class Outcome(Struct, frozen=True):
    """The outcome of feedback: learned and durable, or an error. ``duplicate``: it had been learned before."""

    duplicate: bool = False
    error: str | None = None
    cause: str = ""
