"""Refuses forbidden requests before the management API reads a body or looks for a route, and delays each answer until
the call's changes are stored."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from clipper.api.server.access import Access
from clipper.api.server.operations import CALLER, UNSYNCED
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
            send = _once_stored(send, request["method"])
        await self._app(scope, receive, send)


def _once_stored(send: Send, method: str) -> Send:
    """Return a ``send`` that waits until the call's changes are stored, or sends an error if they may be lost."""
    unsynced: set[Callable[[], Awaitable[None]]] = set()
    UNSYNCED.set(unsynced)
    is_refused = False

    async def send_once_stored(message: Message) -> None:
        nonlocal is_refused
        try:
            while unsynced and message["type"] == "http.response.start":
                await unsynced.pop()()
        except ClipperError as error:
            is_refused = True
            await send_answer(send, method, bare_answer(error))
        if not is_refused:
            await send(message)

    return send_once_stored
