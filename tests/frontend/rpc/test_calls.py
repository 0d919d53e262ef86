"""A call between its task and what answers it: nothing of it is left, however it ends."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from clipper.errors import Overloaded, WrongInput
from clipper.frontend.door import Door
from clipper.frontend.exchange import Exchange
from clipper.frontend.port import Port
from clipper.frontend.rpc.calls import Call, Refused


class Started:
    """What a call has asked."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


def run(test: Callable[[Port], Awaitable[None]]) -> None:
    async def body() -> None:
        port = Port()
        await test(port)
        await asyncio.sleep(0)
        assert port.budget.held_bytes == 0

    before = calls()
    asyncio.run(body())
    assert calls() == before


def calls() -> int:
    gc.collect()
    return sum(isinstance(each, Call) for each in gc.get_objects())


def test_answer_at_once_and_later() -> None:
    async def test(port: Port) -> None:
        def at_once(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.respond(b"now")

        def later(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            asyncio.get_running_loop().call_soon(exchange.respond, b"then")

        for _ in range(10):
            assert await Call(port, at_once).answer() == b"now"
            assert await Call(port, later).answer(held_bytes=100) == b"then"

    run(test)


def test_refusal_and_errors() -> None:
    async def test(port: Port) -> None:
        def refuse(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.refuse("timeout", "too late")

        def fail(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            raise WrongInput("not of the type")

        for begin, code in ((refuse, "timeout"), (fail, "wrong_input")):
            with pytest.raises(Refused) as caught:
                await Call(port, begin).answer()
            assert caught.value.code == code
            caught.value.__traceback__ = None
        assert port.refused == {"wrong_input": 1}

    run(test)


def test_a_bug_costs_one_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
        raise ZeroDivisionError

    async def call() -> bytes:
        return await Call(Port(), fail).answer()

    with pytest.raises(Refused) as caught:
        asyncio.run(call())
    assert caught.value.code == "internal_error"
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_has_what_it_asked_cancelled() -> None:
    async def test(port: Port) -> None:
        started = Started()

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.started = started

        task = asyncio.ensure_future(Call(port, begin).answer(held_bytes=100))
        await asyncio.sleep(0)
        assert port.budget.held_bytes == 100
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert started.is_cancelled

    run(test)


def test_one_that_leaves_at_the_door_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Call] = []
    monkeypatch.setattr(Door, "wait", lambda _, visitor: waiting.append(visitor))
    monkeypatch.setattr(Door, "opens", lambda *_: False)

    async def test(port: Port) -> None:
        asked = []

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            asked.append(is_late)
            exchange.respond(b"")

        leaving = asyncio.ensure_future(Call(port, begin).answer("app", 1.0, 100))
        staying = asyncio.ensure_future(Call(port, begin).answer("app", 1.0, 100))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        while waiting:
            waiting.pop().enter(is_late=True)
        assert await staying == b""
        assert asked == [True]

    run(test)


def test_there_is_no_room_to_wait_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Door, "opens", lambda *_: False)

    async def test(port: Port) -> None:
        with pytest.raises(Overloaded) as caught:
            await Call(port, lambda *_: None).answer("app", 1.0, port.budget.bound_bytes + 1)
        caught.value.__traceback__ = None

    run(test)
