"""Long answers by gRPC: passed on in pieces, the same bytes, and given up with their calls."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import TypedOutput
from clipper.values.types import DType, InputType
from clipper.worker.frontend.rpc import bounds
from tests.worker.frontend.rpc.fake_client import Served, run
from tests.worker.frontend.rpc.http2 import frame
from tests.worker.frontend.rpc.rpc_messages import InferResponse

pytestmark = pytest.mark.usefixtures("engine")

NUMBERS = np.arange(400_000, dtype=np.float32)
LONG: Any = TypedOutput(
    OutputForm(DType.FLOAT32, (400_000,), DType.FLOAT64), NUMBERS.tobytes(), NUMBERS.nbytes, is_long=True
)
WIDE = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = Conversion(InputType(DType.FLOAT32))
    monkeypatch.setattr("tests.worker.frontend.inference.fuzz_infer.Terms.outputs", lambda *_: floats)
    monkeypatch.setattr("clipper.base.turn_budget.VISIT_S", 0.0)


def numbers_of(data: bytes) -> bytes:
    (raw,) = InferResponse.FromString(data[5:]).raw_output_contents
    assert int.from_bytes(data[1:5], "big") == len(data) - 5
    return bytes(raw)


def test_a_long_answer_comes_in_many_turns_and_another_one_behind_it() -> None:
    async def test() -> None:
        served = Served(settings=WIDE)
        client = served.client
        client.send(WindowUpdateFrame(0, 2**31 - 1 - 65_535))
        client.call(1)
        served.answer(output=LONG)
        await asyncio.sleep(0)
        client.call(3)
        served.answer()
        sizes = []
        for _ in range(50):  # frames are cut where pieces end, so they are looked at once all are there
            await asyncio.sleep(0)
            sizes.append(len(client.transport.written))
        sent = [each for each in client.frames() if isinstance(each, DataFrame)]
        numbers = [each.stream_id for each in sent]
        assert numbers_of(b"".join(each.data for each in sent if each.stream_id == 1)) == NUMBERS.tobytes()
        assert 3 in numbers
        assert len(set(sizes)) > 3
        await client.answers()
        client.leave()
        served.assert_nothing_left()

    run(test)


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_client_whose_window_is_small_gets_no_more_of_it(is_reset: bool) -> None:
    async def test() -> None:
        served = Served()
        client = served.client
        client.call(1)
        served.answer(output=LONG)
        answers = await client.answers(20)
        assert len(answers[1]["data"]) == 65_535
        assert served.port.budget.held_bytes > NUMBERS.nbytes - 65_535 - bounds.WRITE_PIECE_BYTES
        if is_reset:
            client.send(RstStreamFrame(1, error_code=8))
        else:
            client.send(WindowUpdateFrame(0, 2**31 - 1 - 65_535), WindowUpdateFrame(1, 2**31 - 1 - 65_535))
            rest = (await client.answers(50))[1]
            assert rest["grpc-status"] == "0"
            assert numbers_of(answers[1]["data"] + rest["data"]) == NUMBERS.tobytes()
        await client.answers()
        client.leave()
        served.assert_nothing_left()

    run(test)


def test_a_connection_that_ends_gives_up_what_it_would_have_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.base.turn_budget.VISIT_S", 0.0)

    async def test() -> None:
        served = Served()
        client = served.client
        client.call(1)
        served.answer(output=LONG)
        await client.answers(20)
        (rest, _) = client.connection._session._long[1]
        pieces = len(rest)
        client.send(frame(7, 0, 0, bytes(8)))  # GOAWAY
        client.leave()
        served.assert_nothing_left()
        assert 0 < len(rest) <= pieces, "all at once would hold the loop"
        await client.answers(2 * pieces)
        assert not rest

    run(test)
