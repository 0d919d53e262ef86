"""What the management API tells of what an application has learned: of its models, its newcomers and its test."""

from msgspec import Struct


class Standing(Struct, frozen=True):
    """A test that ends itself, as the policy ``best_arm`` is one.

    Attributes:
        winner: the model that was found to be the best; None while the test is open.
        confidence: that it is the best one, but for ``tolerance`` of mean loss.
        observations: how much feedback the test has taken.
    """

    winner: str | None
    confidence: float
    tolerance: float
    observations: float


class Newcomer(Struct, frozen=True):
    """A version that is new to an application: ramped, or stopped.

    Attributes:
        before: the version that its link asked before, and asks beside it; None if it has a link of its own.
        share: of the queries, that it gets.
        feedback, rest_feedback: how many answers that it had a part in have had feedback, and how many others since.
        enough_feedback: how many of its own it takes to be through.
        mean_loss, rest_mean_loss: of these answers; None while there are none.
        stopped: why it is asked no more; None while it is ramped.
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


class LearnedModel(Struct, frozen=True):
    """What is known of one of an application's models.

    Attributes:
        version: the one whose numbers they are, with what it has of its predecessors'; None if no version is current.
        share: of the queries that would ask it now; where several answer together, of the answer; where one is asked
            after another, of the queries with feedback that have asked it.
        mean_loss: from 0 to 1; None if no feedback on it has come.
        pulls, scored: how often it was asked, and how often scored, by feedback; what is old counts for less.
        cost: of asking it; None if nobody has said.
        threshold: of a cascade: below which confidence of this model the next one is asked.
    """

    model: str
    share: float
    mean_loss: float | None
    pulls: float
    scored: float
    shadow: bool
    version: str | None = None
    cost: float | None = None
    threshold: float | None = None
