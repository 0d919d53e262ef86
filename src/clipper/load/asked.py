"""What a user asks of a load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipper.load.arrivals import Arrivals
from clipper.tls.trust import ClientTls
from clipper.types import InputType

SloOf = Literal["application", "option"]


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Attributes:
        input_type: the application's; None where nobody tells, and then ``inputs`` are of a file.
        slo_of: who says what the SLO is.
        rate_per_s: of a sweep, the first that is tried.
        duration_s: of a sweep, of each rate.
        inputs: a file, or None for random ones.
        api_key: what the query port wants to be shown; None where it asks for nothing.
        tls: whom to trust, where queries go by TLS.
        width: of random ones, where the type leaves a length open; None is as it comes.
    """

    application: str
    query_url: str
    input_type: InputType | None
    slo_ms: float
    slo_of: SloOf
    rate_per_s: float
    duration_s: float
    sweep: bool
    inputs: Path | None
    width: int | None
    arrivals: Arrivals
    max_connections: int
    tls: ClientTls
    api_key: str | None = None
