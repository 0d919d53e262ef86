"""Series of what happened lately."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from clipper.api.series import MAX_SERIES_S, Series, SeriesOverview
from clipper.api.server.routes import Name, Port

Seconds = Annotated[int, QueryParameter(ge=2, le=MAX_SERIES_S, description="how much of the series, back from now")]


class SeriesOfLate(Controller):
    path = "/series"
    tags = ("series",)

    @get(summary="The last two minutes of all applications, models and workers")
    async def overview(self, operations: Port) -> SeriesOverview:
        return await operations.series_overview()

    @get("/applications/{app:str}", summary="All series of an application, of up to an hour")
    async def of_application(self, operations: Port, app: Name, seconds: Seconds = MAX_SERIES_S) -> Series:
        return await operations.application_series(app, seconds)

    @get("/models/{model:str}", summary="All series of a model, of up to an hour")
    async def of_model(self, operations: Port, model: Name, seconds: Seconds = MAX_SERIES_S) -> Series:
        return await operations.model_series(model, seconds)
