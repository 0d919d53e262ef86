"""The client's methods to watch a server: events, and series of recent values."""

from clipper.api.events import DEFAULT_EVENTS, Events, Kind
from clipper.api.series import MAX_SERIES_S, Series, SeriesOverview
from clipper.client.calls import Calls, part, query_string


class Watching(Calls):
    def events(
        self,
        after: int | None = None,
        *,
        limit: int = DEFAULT_EVENTS,
        kind: Kind | None = None,
        subject: str | None = None,
        who: str | None = None,
    ) -> Events:
        """Return what happened, oldest first, at most ``limit`` (1 to 1000) events at once.

        Args:
            after: the ``next`` of an earlier answer, for later events; None asks for the latest.
            kind: only events of this kind.
            subject: only events on this, e.g. ``model digits``.
            who: only changes by this caller: a token's name, ``operator`` or ``clipper``.
        """
        parameters = {"after": after, "limit": limit, "kind": kind, "subject": subject, "who": who}
        return self._ask(Events, "GET", f"/events{query_string(parameters)}")

    def series(self) -> SeriesOverview:
        """Return the last two minutes of all applications, models and workers."""
        return self._ask(SeriesOverview, "GET", "/series")

    def application_series(self, name: str, *, seconds: int = MAX_SERIES_S) -> Series:
        """Return all series of an application, of the last ``seconds``: from 2 to 3600."""
        return self._ask(Series, "GET", f"/series/applications/{part(name)}?seconds={seconds}")

    def model_series(self, name: str, *, seconds: int = MAX_SERIES_S) -> Series:
        """Return a model's series, as ``application_series`` does an application's."""
        return self._ask(Series, "GET", f"/series/models/{part(name)}?seconds={seconds}")
