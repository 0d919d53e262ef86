"""The options of a load."""

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
        input_type: the application's; None if it is not known, and then ``inputs`` must be a file.
        slo_of: where the SLO comes from.
        rate_per_s: for a sweep, the first rate.
        duration_s: for a sweep, of each rate.
        inputs: a file, or None for random inputs.
        api_key: the key for the query port; None if it needs none.
        tls: which certificate to trust, if queries use TLS.
        width: length of open dimensions in random inputs; None for the default.
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
