"""One file for each noun: HTTP in, a call of the port, JSON out. Routes contain no rules."""

from collections.abc import Sequence
from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, SkipValidation

from clipper.api.schemas import MAX_LOG_LINES
from clipper.api.server.operations import Operations
from clipper.errors import InvalidArgument

# The port is a Protocol, against which the framework cannot check an instance.
Port = NamedDependency[SkipValidation[Operations]]
Name = FromPath[str]
Names = Annotated[list[str] | None, QueryParameter(description="only these; may be repeated; all if left out")]
Lines = Annotated[int, QueryParameter(ge=1, le=MAX_LOG_LINES, description="how many lines of each log")]
After = Annotated[
    list[str] | None,
    QueryParameter(description="NAME=PLACE of a log, with its place from an earlier answer; may be repeated"),
]


def read_places(texts: Sequence[str] | None) -> dict[str, str]:
    """Read ``after``: places by the names of logs. Raises InvalidArgument if a text is not NAME=PLACE."""
    places = {}
    for text in texts or ():
        name, equals, place = text.rpartition("=")
        if not equals:
            raise InvalidArgument(f"after is {text!r:.100}: expected NAME=PLACE, with a place from an earlier answer")
        places[name] = place
    return places
