"""A container that speaks the real protocol on a real socket, inside the test's own loop.

It evaluates nothing: each batch is handed to the test, or to ``evaluate`` if the test gave one.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from clipper.control.snapshot import ReplicaAddress
from clipper.model.protocol import messages
from clipper.model.protocol.asks import Refusal, decode_answer
from clipper.model.protocol.columns import BatchResults
from clipper.model.protocol.frames import PROTOCOL_VERSION, Kind, Splitter
from clipper.model.protocol.messages import Predict, Welcome
from clipper.values.types import InputType

Evaluate = Callable[[list[bytes]], Sequence[bytes]]

DOUBLES = InputType.parse("doubles")


@dataclass
class Batch:
    """A PREDICT that came in, and how to answer it."""

    id: int
    predict: Predict
    caller: "_Caller"

    @property
    def rows(self) -> list[bytes]:
        sizes = self.predict.lengths or (self.predict.row_bytes or 0,) * self.predict.rows
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        return [bytes(self.predict.payload[end - size : end]) for end, size in zip(ends, sizes)]

    def answer(
        self, outputs: Sequence[bytes], failures: Mapping[int, str] | None = None, evaluation_us: int = 0
    ) -> None:
        text = b"\n".join(outputs)
        self.caller.write(messages.encode_results(self.id, len(outputs), text, evaluation_us, failures))

    def fail(self, message: str) -> None:
        self.caller.write(messages.encode_error(self.id, message))


class SmallContainer:
    """One replica. ``greeting`` is what HELLO is answered with: its WELCOME unless the test says otherwise."""

    def __init__(
        self,
        path: Path,
        model: str = "digits",
        version: str = "1",
        input_type: InputType = DOUBLES,
        max_batch: int | None = None,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.path = path
        self.address = f"unix:{path}"
        self.replica = ReplicaAddress(f"{model}:{version}#{path.name}", self.address)
        self.greeting: bytes | None = messages.encode_welcome(Welcome(model, version, input_type, max_batch))
        self.evaluate = evaluate
        self.batches: list[Batch] = []
        self.answers: dict[int, BatchResults | Refusal] = {}
        self.tokens: list[str] = []
        self.callers: list[_Caller] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> "SmallContainer":
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Caller(self), str(self.path))
        return self

    async def kill(self) -> None:
        """As by SIGKILL: the socket's file stays, nobody answers."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for caller in self.callers:
            caller.transport.abort()
        self.callers.clear()
        await asyncio.sleep(0)

    def take(self) -> Batch:
        """The batch that came first of those not yet taken."""
        return self.batches.pop(0)


class _Caller(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, container: SmallContainer) -> None:
        self._container = container
        self._splitter = Splitter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._container.callers.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._container.callers:
            self._container.callers.remove(self)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        for kind, frame_id, body in self._splitter.feed(data):
            if kind == Kind.HELLO:
                self._greet(messages.decode_hello(body).token)
            elif kind == Kind.ANSWER:
                self._container.answers[frame_id] = decode_answer(body)
            else:
                self._receive(Batch(frame_id, messages.decode_predict(body, PROTOCOL_VERSION), self))

    def _greet(self, token: str) -> None:
        self._container.tokens.append(token)
        if self._container.greeting is not None:
            self.write(self._container.greeting)

    def _receive(self, batch: Batch) -> None:
        if self._container.evaluate is None:
            self._container.batches.append(batch)
        else:
            batch.answer(self._container.evaluate(batch.rows))
