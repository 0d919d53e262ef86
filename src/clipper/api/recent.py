"""The outcomes of an application's queries of the last minute."""

from collections import Counter

from msgspec import Struct

# The only default that the application itself asked for, by its threshold of confidence.
ASKED_FOR = "low_confidence"


class LastMinute(Struct, frozen=True):
    """Outcomes of an application's queries of the last minute, over all workers; counted every two seconds.

    Attributes:
        queries: queries that were asked. Some of the answers may be to earlier queries.
        late: answers later than the SLO, and defaults and errors because no model answered within it.
        defaults, errors: by reason; an error is an answer without any output.
        answered: by model, or model and version, how many had an output of it. An ensemble's answer has several.
        explanations: by reason, the explanation of the latest default or error. A model's message may quote an input.
    """

    queries: int = 0
    late: int = 0
    defaults: dict[str, int] = {}
    errors: dict[str, int] = {}
    explanations: dict[str, str] = {}
    answered: dict[str, int] = {}

    @property
    def failures(self) -> Counter[str]:
        """The queries that failed, by reason: with an error, or with a default that the application did not ask for."""
        failed = Counter(self.errors) + Counter(self.defaults)
        del failed[ASKED_FOR]
        return failed

    @property
    def late_outputs(self) -> int:
        """The number of models' answers that were later than the SLO."""
        return max(self.late - self.defaults.get("timeout", 0) - self.errors.get("timeout", 0), 0)
