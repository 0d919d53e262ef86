"""Applications and their links to models."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.openapi import ResponseSpec
from litestar.params import FromQuery, HeaderParameter, JSONBody

from clipper.api.reports import Report
from clipper.api.schemas import Application, Contexts, LearnedPolicy, LinkChange
from clipper.api.server.operations import Call
from clipper.api.server.routes import Name, Port
from clipper.settings.application import ApplicationChange, NewApplication

# The request's Authorization has the token.
Key = Annotated[
    str | None, HeaderParameter(name="Clipper-Api-Key", description="the key, if the application wants one")
]
# Only for the description: the query port gets the bytes as they came.
Query = JSONBody[dict[str, Any]]
ANSWER = ResponseSpec(dict[str, Any], description="as docs/http-api.md describes it", generate_examples=False)


class Applications(Controller):
    path = "/applications"
    tags = ("applications",)

    @get(summary="List the applications")
    async def list_all(self, operations: Port) -> list[Application]:
        return await operations.list_applications()

    @post(summary="Create an application; answers once every worker serves it")
    async def create(self, operations: Port, data: JSONBody[NewApplication]) -> Application:
        return await operations.create_application(data)

    @get("/{app:str}", summary="Show an application")
    async def show(self, operations: Port, app: Name) -> Application:
        return await operations.get_application(app)

    @patch("/{app:str}", summary="Change its objective, its default output, or how it selects")
    async def change(self, operations: Port, app: Name, data: JSONBody[ApplicationChange]) -> Application:
        return await operations.change_application(app, data)

    @delete("/{app:str}", summary="Remove an application")
    async def remove(self, operations: Port, app: Name) -> None:
        await operations.delete_application(app)

    @get("/{app:str}/policy", summary="Show what the policy has learned, over all queries or in a context")
    async def policy(self, operations: Port, app: Name, context: FromQuery[str | None] = None) -> LearnedPolicy:
        return await operations.describe_policy(app, context)

    @get("/{app:str}/report", summary="Compare its models: which is better, how sure that is, when it will be known")
    async def report(
        self,
        operations: Port,
        app: Name,
        confidence: FromQuery[float | None] = None,
        tolerance: FromQuery[float | None] = None,
        context: FromQuery[str | None] = None,
        by_context: FromQuery[bool] = False,
    ) -> Report:
        return await operations.report(app, confidence, tolerance, context, by_context)

    @get("/{app:str}/contexts", summary="Count the contexts, and list those with the latest feedback")
    async def contexts(self, operations: Port, app: Name, limit: FromQuery[int] = 100) -> Contexts:
        return await operations.list_contexts(app, limit)

    # In the query: a context may be any text, also one with slashes.
    @delete("/{app:str}/contexts", summary="Forget the learned state of a context")
    async def delete_context(self, operations: Port, app: Name, context: FromQuery[str]) -> None:
        await operations.delete_context(app, context)

    @put("/{app:str}/links/{model:str}", summary="Link a model, following its current version or pinned to one")
    async def link(self, operations: Port, app: Name, model: Name, data: JSONBody[LinkChange]) -> Application:
        return await operations.link(app, model, data)

    @delete("/{app:str}/links/{model:str}", status_code=200, summary="Unlink a model")
    async def unlink(self, operations: Port, app: Name, model: Name) -> Application:
        return await operations.unlink(app, model)

    @post(
        "/{app:str}/predict",
        status_code=200,
        responses={200: ANSWER},
        summary="Predict, as the query port does",
    )
    async def predict(
        self, operations: Port, app: Name, data: Query, request: Request[Any, Any, Any], key: Key = None
    ) -> Response[bytes]:
        return await _asked(operations, app, "predict", request, key)

    @post(
        "/{app:str}/observe",
        status_code=200,
        responses={200: ANSWER},
        summary="Give feedback, as the query port takes it",
    )
    async def observe(
        self, operations: Port, app: Name, data: Query, request: Request[Any, Any, Any], key: Key = None
    ) -> Response[bytes]:
        return await _asked(operations, app, "observe", request, key)


async def _asked(
    operations: Port, app: str, call: Call, request: Request[Any, Any, Any], key: str | None
) -> Response[bytes]:
    status, body = await operations.ask(app, call, await request.body(), key)
    return Response(body, status_code=status, media_type="application/json")
