"""How large a body an application takes, and what a batch leaves behind."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clipper.values.inputs.record_reader import reader_of
from clipper.values.types import InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.endpoints import FeedbackTaker, make_endpoints, most_body_bytes
from clipper.worker.frontend.http.port import Port
from clipper.worker.selection.query import NO_SOURCE
from tests.serving import application, post, serving
from tests.worker.frontend.fake_transport import Peer, run


@pytest.mark.parametrize(
    ("input_type", "expected"),
    [
        ("float64[4]", 50_000),
        ("float64[784]", 2 * 784 * limits.BODY_BYTES_PER_NUMBER),
        ("string", 50_000),
        ("float64[*]", 50_000),
        ("float32[3,224,224]", 2 * 3 * 224 * 224 * limits.BODY_BYTES_PER_NUMBER),
        ("uint8[3,1024,1024]", limits.MAX_TYPED_BODY_BYTES),
        ("float64[999999999]", limits.MAX_TYPED_BODY_BYTES),
    ],
)
def test_what_a_batch_can_need_may_be_sent(input_type: str, expected: int) -> None:
    assert most_body_bytes(InputType.parse(input_type).elements, 2, 50_000) == expected


def test_bound_of_bodies_is_the_workers_or_the_applications() -> None:
    with serving() as system:
        worker = system.start_worker(max_body_bytes=100_000)
        applications = [application("small"), application("large", input_type="float64[20000]")]
        system.apply(applications, [])
        body = b'{"input": [' + b"0.12345," * 19_999 + b"1]}"
        with worker.connect() as client:
            answer = client.ask("/large/predict", body)
            assert (answer.status, answer.json["error"]) == (503, "no_replica")
            answer = client.ask("/small/predict", body)
            assert (answer.status, answer.json["cause"]) == (
                413,
                "the body is over 100000 bytes: send fewer inputs at once, or have the server's --max-body-size raised",
            )


class Slow:
    """An application whose queries end when the test says so."""

    name = "slow"
    input_type = InputType.parse("float64")
    terms = SimpleNamespace(
        input_type=input_type,
        slo_s=1.0,
        features_size=None,
        max_batch=1,
        make_reader=partial(reader_of, input_type),
    )

    def __init__(self) -> None:
        self.askers: list[Any] = []
        self.cancelled = 0
        self.done = False

    def predict(self, row: bytes, asker: Any, *_: object) -> "Slow":
        self.askers.append(asker)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.mark.pure
@pytest.mark.parametrize("answered", [0, 10, 3000])
@pytest.mark.parametrize("turns", [0, 1, 10_000])
def test_batch_leaves_nothing_behind_whenever_its_client_leaves(answered: int, turns: int) -> None:
    async def test(port: Port) -> None:
        application: Any = Slow()
        port.serve(make_endpoints([application], cast(FeedbackTaker, None), port.work))
        peer = Peer(port)
        peer.send(post("/slow/predict", {"input_batch": [[number] for number in range(3000)]}))
        for _ in range(turns):
            if len(application.askers) == 3000:
                break
            await asyncio.sleep(0)
        for number, asker in enumerate(application.askers[:answered]):
            asker.on_prediction(number, b"1", 1.0, NO_SOURCE)
        peer.leave()
        for _ in range(3):
            await asyncio.sleep(0)
        assert port.budget.held_bytes == 0

    run(test)
