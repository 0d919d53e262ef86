"""The client's methods to watch a server: series of what happened lately."""

from clipper.client.calls import Calls, part
from clipper.management.series import MAX_SERIES_S, Series, SeriesOverview


class Watching(Calls):
    """What a server keeps for who watches it."""

    def series(self) -> SeriesOverview:
        """The last two minutes of all applications, models and workers."""
        return self._ask(SeriesOverview, "GET", "/series")

    def application_series(self, name: str, *, seconds: int = MAX_SERIES_S) -> Series:
        """All series of an application, of the last ``seconds``: from 2 to 3600."""
        return self._ask(Series, "GET", f"/series/applications/{part(name)}?seconds={seconds}")

    def model_series(self, name: str, *, seconds: int = MAX_SERIES_S) -> Series:
        """As ``application_series``."""
        return self._ask(Series, "GET", f"/series/models/{part(name)}?seconds={seconds}")
