"""Whether a server should be sent queries: what balancers and probes ask for, by REST and by gRPC."""

from collections.abc import Collection

from clipper.selection.application import Application


class Readiness:
    """The readiness of one worker, which all its ports tell.

    Attributes:
        is_stopping: the server was told to stop. It still answers queries, and wants no further ones.
    """

    def __init__(self, applications: Collection[Application]) -> None:
        """``applications`` are those that the worker serves at the moment of each call."""
        self._applications = applications
        self.is_stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether every application has a model with a replica, and the server is not stopping."""
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        """Why the server is not ready; None if it is. The text has no names, since nobody shows a key to ask."""
        if self.is_stopping:
            return "not ready: the server is stopping; send queries to another"
        waiting = sum(not application.terms.is_ready for application in self._applications)
        if waiting:
            return f"not ready: applications without a model that has a replica: {waiting}; clipper status lists them"
        return None

    def of_model(self, application: Application, version: str | None) -> bool:
        """Whether an application, or one running version of its models, can answer, and the server is not stopping."""
        terms = application.terms
        return not self.is_stopping and (any(terms.versions()[version].values()) if version else terms.is_ready)
