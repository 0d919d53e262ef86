"""Infer requests whose clients leave, and infer requests that come too late."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from clipper.values.types import InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.inference.infer import Call
from clipper.worker.frontend.inference.service import Inference
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.selection.query import NO_SOURCE
from tests.serving import post
from tests.worker.frontend.fake_transport import Peer, run
from tests.worker.frontend.inference.fuzz_infer import Answering, serving


class Slow(Answering):
    """An application whose queries end when the test says so."""

    def __init__(self) -> None:
        super().__init__(InputType.parse("float64[1]"), None, b"1")
        self.askers: list[Any] = []
        self.shed_askers: list[Any] = []
        self.done = False

    def predict(self, row: bytes, asker: Any, *_: object) -> "Slow":
        self.askers.append(asker)
        return self

    def shed(self, asker: Any) -> None:
        self.shed_askers.append(asker)
        asker.on_no_prediction(1, "overloaded", "too late")


def with_slow(test: Callable[[Port, Slow], Any]) -> None:
    async def body(port: Port) -> None:
        application = Slow()
        port.serve({}, Inference(serving(application, port, Readiness([]))))
        await test(port, application)

    run(body)


def request(rows: int) -> bytes:
    tensor = {"name": "x", "shape": [rows, 1], "datatype": "FP64", "data": [[0.5]] * rows}
    return post("/v2/models/app/infer", {"inputs": [tensor]})


@pytest.mark.parametrize("answered", [0, 10, 3000])
@pytest.mark.parametrize("turns", [0, 1, 10_000])
def test_batch_leaves_nothing_behind_whenever_its_client_leaves(answered: int, turns: int) -> None:
    async def test(port: Port, application: Slow) -> None:
        peer = Peer(port)
        peer.send(request(3000))
        for _ in range(turns):
            if len(application.askers) == 3000:
                break
            await asyncio.sleep(0)
        for number, asker in enumerate(application.askers[:answered]):
            asker.on_prediction(number, b"[1,2,3]", 1.0, NO_SOURCE)
        peer.leave()
        for _ in range(3):
            await asyncio.sleep(0)
        assert port.budget.held_bytes == 0

    with_slow(test)


def test_rows_count_against_the_memory_of_requests_until_answers_do() -> None:
    async def test(port: Port, application: Slow) -> None:
        rows = 1000
        port.budget.bound_bytes = rows * limits.HELD_BYTES_PER_ROW * 3 // 2
        first, second = Peer(port), Peer(port)
        first.send(request(rows))
        while len(application.askers) < rows:
            await asyncio.sleep(0)
        assert port.budget.held_bytes >= rows * limits.HELD_BYTES_PER_ROW
        second.send(request(rows))
        while not second.responses:
            await asyncio.sleep(0)
        (refused,) = second.responses
        assert (refused.status, refused.json["code"]) == (503, "overloaded")
        for number, asker in enumerate(application.askers):
            asker.on_prediction(number, b"1", 1.0, NO_SOURCE)
        while not first.responses:
            await asyncio.sleep(0)
        assert first.responses[0].status == 200 and port.budget.held_bytes == 0

    with_slow(test)


def test_a_row_that_fails_ends_the_others_and_is_the_answer() -> None:
    async def test(port: Port, application: Slow) -> None:
        peer = Peer(port)
        peer.send(request(3))
        while len(application.askers) < 3:
            await asyncio.sleep(0)
        first, second, third = application.askers
        first.on_prediction(1, b"1", 1.0, NO_SOURCE)
        second.on_no_prediction(2, "timeout", "late")
        third.on_prediction(3, b"1", 1.0, NO_SOURCE)
        (answer,) = peer.responses
        assert (answer.status, answer.json) == (504, {"error": "late", "code": "timeout"})
        assert port.budget.held_bytes == 0

    with_slow(test)


def test_one_that_waited_for_too_long_is_shed_and_several_are_asked() -> None:
    async def test(port: Port, application: Slow) -> None:
        endpoint = port.find(b"/v2/models/app/infer", Head())
        assert isinstance(endpoint, Call)
        peer = Peer(port)
        one = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [0.5]}]}).encode()
        exchange = Exchange(peer.connection)
        endpoint.handle(exchange, one, 0.0, True)
        assert (
            exchange.response is not None and b"503" in exchange.response and b'"error":"too late"' in exchange.response
        )
        assert (len(application.shed_askers), len(application.askers)) == (1, 0)
        endpoint.handle(Exchange(peer.connection), request(2).partition(b"\r\n\r\n")[2], 0.0, True)
        while len(application.askers) < 2:
            await asyncio.sleep(0)
        peer.leave()

    with_slow(test)


def test_what_json_says_is_remembered_only_where_it_holds_no_data() -> None:
    async def test(port: Port, application: Slow) -> None:
        endpoint = port.find(b"/v2/models/app/infer", Head())
        assert isinstance(endpoint, Call)
        plans = endpoint._infer._plans
        peer = Peer(port)
        peer.send(request(1))
        assert len(plans) == 0
        for number in range(600):
            name = f"x{number % 300}"
            tensor = {"name": name, "shape": [1, 1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
            text = json.dumps({"inputs": [tensor]}).encode()
            peer.send(post("/v2/models/app/infer", text + bytes(8), Inference_Header_Content_Length=str(len(text))))
            application.askers[-1].on_prediction(1, b"1", 1.0, NO_SOURCE)
        assert 0 < len(plans) <= 256

    with_slow(test)


def test_versions_are_remembered_no_longer_than_a_snapshot_that_runs_them() -> None:
    async def body(port: Port) -> None:
        application = Slow()
        inference = Inference(serving(application, port, Readiness([])))
        before = inference._infer["app"]
        for number in range(300):
            before.tensors._known[str(number)] = before.tensors.of(None)
        inference.follow([application])  # type: ignore[list-item]
        assert inference._infer["app"] is not before and not inference._infer["app"].tensors._known

    run(body)
