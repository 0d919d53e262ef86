"""Tells balancers and probes, by REST and by gRPC, whether a server should be sent queries."""

from collections.abc import Collection
from urllib.parse import parse_qsl

from clipper.errors import InvalidArgument, NotFound
from clipper.worker.selection.application import Application

# More applications than a probe would name by hand.
MAX_NAMED = 100


class Readiness:
    """A worker's readiness, for all its ports. ``is_stopping``: it answers queries still, but wants no more."""

    def __init__(self, applications: Collection[Application], needs_all: bool = False) -> None:
        """``applications``: those served when it is asked. ``needs_all``: whether all have to be able to answer."""
        self._applications = applications
        self._needs_all = needs_all
        self.is_stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether enough applications have a model with a replica, and the server is not stopping."""
        return self.why_not() is None

    def why_not(self, names: Collection[str] = ()) -> str | None:
        """Return why the server is not ready for these applications; None if it is.

        Without names, as many applications count as have to be able to answer, and the text has no names, because this
        needs no key.

        Raises NotFound if there is no application of such a name.
        """
        asked = {one.name: one for one in self._applications} if names else {}
        if unknown := [name for name in names if name not in asked]:
            raise NotFound(
                f"application {unknown[0]!r:.100} does not exist: GET /v2/repository/index lists those that do"
            )
        if self.is_stopping:
            return "not ready: the server is stopping; send queries to another"
        if waiting := [name for name in names if not asked[name].is_ready]:
            return f"not ready: applications without a model that has a replica: {', '.join(waiting)}"
        if names:
            return None
        count = sum(not application.is_ready for application in self._applications)
        if count and (self._needs_all or count == len(self._applications)):
            return f"not ready: applications without a model that has a replica: {count}; clipper status lists them"
        return None

    def of_model(self, application: Application, version: str | None) -> bool:
        """Whether an application, or a running version of its models, can answer, and the server is not stopping."""
        terms = application.terms
        return not self.is_stopping and (any(terms.versions()[version].values()) if version else application.is_ready)


def named(url: bytes) -> tuple[str, ...]:
    """Return the applications in ``/health/ready?application=NAME``. Raises InvalidArgument for any other form."""
    try:
        query = url.partition(b"?")[2].decode()
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_NAMED)
    except ValueError as error:
        raise InvalidArgument(
            f"the query is not valid: expected application=NAME, at most {MAX_NAMED} times"
        ) from error
    names = tuple(value for name, value in pairs if name == "application")
    if "" in names:
        raise InvalidArgument("application has no value: expected application=NAME, with the name of an application")
    return names
