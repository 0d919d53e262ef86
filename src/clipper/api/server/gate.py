"""Refuses what is not allowed before the management API reads a body or looks for a route."""

from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from clipper.api.server.access import Access
from clipper.api.server.operations import CALLER
from clipper.api.server.statuses import bare_answer, send_answer
from clipper.errors import ClipperError
from clipper.values.types import Caller


class Gate:
    """An ASGI application that passes on the requests that ``access`` allows, with the ``role`` in their state."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Any = scope
        if request["type"] == "http":
            try:
                holder = self._access.check(request["method"], request["path"], request["headers"])
            except ClipperError as error:
                await send_answer(send, request["method"], bare_answer(error))
                return
            request["state"] = {**request.get("state", {}), "role": holder.role if holder else None}
            if holder is not None:
                client = request.get("client")
                CALLER.set(Caller(holder.name, client[0] if client else None))
        await self._app(scope, receive, send)
