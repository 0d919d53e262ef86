"""The options of ``clipper load``, and the application that it loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from clipper.base.tls.trust import ClientTls
from clipper.cli.load.arrivals import Arrivals
from clipper.values.types import InputType

SloOf = Literal["application", "option"]


class LoadedApplication(NamedTuple):
    """The application that is asked, and its SLO.

    Attributes:
        input_type: None if it is not known, and then inputs come from a file.
        slo_of: where the SLO comes from.
        tls: which certificate to trust, if queries use TLS.
    """

    application: str
    query_url: str
    input_type: InputType | None
    slo_ms: float
    slo_of: SloOf
    tls: ClientTls


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """
    Attributes:
        rate_per_s: for a sweep, the first rate.
        duration_s: for a sweep, of each rate.
        inputs: a file, or None for random inputs.
        width: length of open dimensions in random inputs; None for the default.
        api_key: the key for the query port; None if it needs none.
    """

    rate_per_s: float
    duration_s: float
    sweep: bool
    inputs: Path | None
    width: int | None
    arrivals: Arrivals
    max_connections: int
    api_key: str | None = None
