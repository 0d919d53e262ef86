"""Refuses what is not allowed before the management API reads a body or looks for a route."""

from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from clipper.errors import ClipperError
from clipper.management.access import Access
from clipper.management.statuses import bare_answer


class Gate:
    """An ASGI application that passes on the requests that ``access`` allows, with the ``role`` in their state."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Any = scope
        if request["type"] == "http":
            try:
                role = self._access.check(request["method"], request["path"], request["headers"])
            except ClipperError as error:
                status, headers, body = bare_answer(error)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                sent = b"" if request["method"] == "HEAD" else body
                await send({"type": "http.response.body", "body": sent, "more_body": False})
                return
            request["state"] = {**request.get("state", {}), "role": role}
        await self._app(scope, receive, send)
