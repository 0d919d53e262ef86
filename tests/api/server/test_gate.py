"""When the management API answers a call that has changed something."""

import asyncio
from typing import Any

import pytest

from clipper.api.server.access import Access, Holder, Hosts
from clipper.api.server.gate import Gate
from clipper.api.server.operations import UNSYNCED
from clipper.errors import RegistryUnavailable
from tests.event_loops import run_clean, turn_over

TOKEN = "a" * 40
HEADERS = [(b"host", b"127.0.0.1:1338"), (b"authorization", f"Bearer {TOKEN}".encode())]
ACCESS = Access(Hosts("127.0.0.1"), lambda token: Holder("operator", "admin") if token == TOKEN else None, False)


class Registry:
    def __init__(self) -> None:
        self.is_stored = asyncio.Event()
        self.fails = False
        self.waits = 0

    async def sync(self) -> None:
        self.waits += 1
        await self.is_stored.wait()
        if self.fails:
            raise RegistryUnavailable("it is away; the change may have been made or not")


def calls(registry: Registry, changes: int) -> tuple[list[dict[str, Any]], "asyncio.Task[None]"]:
    """Make a call that changes something so often; return what is sent, and the call."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(changes):
            unsynced = UNSYNCED.get()
            assert unsynced is not None
            unsynced.add(registry.sync)
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"made", "more_body": False})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any: ...

    scope: Any = {"type": "http", "method": "DELETE", "path": "/applications/a", "headers": HEADERS}
    return sent, asyncio.create_task(Gate(app, ACCESS)(scope, receive, send))  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", [False, True])
def test_a_change_is_answered_once_it_is_stored_and_others_at_once(fails: bool) -> None:
    async def steps() -> None:
        registry = Registry()
        registry.fails = fails
        sent, changing = calls(registry, 2)
        other, looking = calls(registry, 0)
        await looking
        await turn_over()
        assert [each["type"] for each in other] == ["http.response.start", "http.response.body"]
        assert (sent, registry.waits) == ([], 1)
        registry.is_stored.set()
        await changing
        assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
        assert (sent[0]["status"], b"may have been made or not" in sent[1]["body"]) == (503 if fails else 201, fails)
        assert (sent[1]["body"] == b"made") is not fails

    run_clean(steps())
