"""What a change would be refused for, by the rules of the change itself. Nothing is changed."""

from litestar import Controller, post
from litestar.params import JSONBody

from clipper.api.server.routes import Port
from clipper.settings.application import NewApplication
from clipper.settings.version import Deployment


class Checks(Controller):
    path = "/checks"
    tags = ("checks",)

    @post("/application", status_code=204, summary="Check an application that may be created or changed later")
    async def application(self, operations: Port, data: JSONBody[NewApplication]) -> None:
        await operations.check_application(data)

    @post("/deployment", status_code=204, summary="Check a deployment whose artifact may be uploaded later")
    async def deployment(self, operations: Port, data: JSONBody[Deployment]) -> None:
        await operations.check_deployment(data)
