"""What the management API shows of an application's last minute."""

from msgspec import Struct


class LastMinute(Struct, frozen=True):
    """What came of an application's queries of the last minute, over all workers, as it was counted every two seconds.

    Attributes:
        queries: that were asked. Some of the answers may be to earlier ones.
        late: answers later than the SLO, and defaults and errors because no model answered within it.
        defaults, errors: by reason; an error is an answer without any output.
        explanations: by the reasons of both, the explanation of the latest. A model's message may quote an input.
    """

    queries: int = 0
    late: int = 0
    defaults: dict[str, int] = {}
    errors: dict[str, int] = {}
    explanations: dict[str, str] = {}
