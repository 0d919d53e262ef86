"""A call between its client and what answers it: nothing of it is left, however it ends."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from functools import partial

import pytest

from clipper.base.turn_budget import TurnBudget
from clipper.errors import WrongInput
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.rpc.calls import Call
from clipper.worker.frontend.rpc.statuses import Refused
from clipper.worker.frontend.rpc.stream import Rest


class Started:
    """A request that a call has started."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Caller:
    def __init__(self) -> None:
        self.ends: list[object] = []

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        self.ends.append(b"".join((message, *rest)))

    def on_refusal(self, refused: Refused) -> None:
        self.ends.append(refused.code)


def run(test: Callable[[Port, Caller], Awaitable[None]]) -> None:
    async def body() -> None:
        port = Port()
        await test(port, Caller())
        await asyncio.sleep(0)
        assert port.budget.held_bytes == 0

    before = calls()
    asyncio.run(body())
    assert calls() == before


def calls() -> int:
    gc.collect()
    return sum(isinstance(each, Call) for each in gc.get_objects())


def test_answer_at_once_and_later() -> None:
    async def test(port: Port, caller: Caller) -> None:
        def at_once(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.respond(b"now")

        def later(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            asyncio.get_running_loop().call_soon(exchange.respond, b"then")

        for _ in range(10):
            Call(port, caller, b"").run(lambda call: call.answer(b"plainly"))
            Call(port, caller, b"").run(lambda call: call.ask(at_once))
            Call(port, caller, bytes(100)).run(lambda call: call.ask(later))
            assert port.budget.held_bytes == 100
            await asyncio.sleep(0)
        assert caller.ends == [b"plainly", b"now", b"then"] * 10

    run(test)


def test_an_answer_may_be_asked_about_again() -> None:
    async def test(port: Port, caller: Caller) -> None:
        def method(call: Call) -> None:
            def then(answer: bytes) -> None:
                call.ask(lambda exchange, *_: port.work.begin(exchange, 1, steps(exchange, answer)))

            call.ask(lambda exchange, *_: exchange.respond(b"first"), then=then)

        def steps(exchange: Exchange, answer: bytes) -> Generator[None, None, None]:
            yield
            exchange.respond(answer + b", second")

        Call(port, caller, b"").run(method)
        for _ in range(5):
            await asyncio.sleep(0)
        assert caller.ends == [b"first, second"]

    run(test)


def test_refusal_and_errors() -> None:
    async def test(port: Port, caller: Caller) -> None:
        def refuse(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.refuse("timeout", "too late")

        def fail(*_: object) -> None:
            raise WrongInput("not of the type")

        Call(port, caller, b"").run(fail)

        def ask(call: Call, begin: Callable[..., None]) -> None:
            call.ask(lambda exchange, *_: exchange.respond(b""), then=lambda _: call.ask(begin))

        for begin in (refuse, fail):
            Call(port, caller, b"").run(partial(Call.ask, begin=begin))
            Call(port, caller, b"").run(partial(ask, begin=begin))
        assert caller.ends == ["wrong_input", "timeout", "timeout", "wrong_input", "wrong_input"]
        assert port.refused == {"wrong_input": 3}

    run(test)


def test_a_bug_costs_one_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def test() -> None:
        caller = Caller()
        Call(Port(), caller, b"").run(fail)
        Call(Port(), caller, b"").run(lambda call: call.ask(fail))
        assert caller.ends == ["internal_error"] * 2

    asyncio.run(test())
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_has_what_it_asked_cancelled() -> None:
    async def test(port: Port, caller: Caller) -> None:
        started = Started()

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            exchange.started = started

        call = Call(port, caller, bytes(100))
        call.run(lambda call: call.ask(begin))
        assert port.budget.held_bytes == 100
        call.cancel()
        assert started.is_cancelled and not caller.ends

    run(test)


def test_one_that_leaves_before_its_turn_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[Call] = []
    monkeypatch.setattr(TurnBudget, "wait", lambda _, visitor: waiting.append(visitor))
    monkeypatch.setattr(TurnBudget, "is_open", lambda *_: False)

    async def test(port: Port, caller: Caller) -> None:
        asked = []

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            asked.append(is_late)
            exchange.respond(b"")

        leaving, staying = Call(port, caller, bytes(100)), Call(port, caller, bytes(100))
        for call in (leaving, staying):
            call.run(lambda call: call.ask(begin, "app", 1.0))
        leaving.cancel()
        while waiting:
            waiting.pop().enter(is_late=True)
        assert caller.ends == [b""] and asked == [True]

    run(test)


def test_there_is_no_room_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnBudget, "is_open", lambda *_: False)

    async def test(port: Port, caller: Caller) -> None:
        port.budget.bound_bytes = 99
        Call(port, caller, bytes(100)).run(lambda call: call.ask(lambda *_: None, "app", 1.0))
        assert caller.ends == ["overloaded"]

    run(test)
