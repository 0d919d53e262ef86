"""The supervisor's own connections to a replica: they check that it is alive, and warm it up before it is in service.

So no query is late because a model loads, compiles or fills something in its first calls."""

import asyncio
import json
import math
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal, Protocol

from clipper.base.tls.trust import pinned_context
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ModelFailed, ProtocolViolation
from clipper.model.protocol import messages
from clipper.model.protocol.batches import make_encoder
from clipper.model.protocol.columns import RESULTS_DECODERS
from clipper.model.protocol.frames import (
    MAX_BODY_BYTES,
    MIXED_VERSION,
    OLDEST_VERSION,
    Frame,
    Kind,
    Splitter,
)
from clipper.model.protocol.messages import Welcome
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import MAX_TYPE_CHARACTERS, Field, RecordType, ValueType
from clipper.values.types import DType, InputType, ModelId

# The longest reply: a WELCOME has two types, and JSON may take six bytes per character; the reply to PING is eight
# bytes.
MAX_REPLY_BYTES = 2 * 6 * MAX_TYPE_CHARACTERS + 64 * 1024

_READ_BYTES = 64 * 1024
# The newest version in which each frame gets exactly one answer.
_VERSION = MIXED_VERSION


class Caller:
    """A connection on which the container has answered HELLO by ``welcome``.

    Methods raise ``OSError`` if the connection fails, and ``ProtocolViolation`` if the container breaks the protocol.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self.welcome = welcome
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter(MAX_REPLY_BYTES)
        self._frames = 0

    @classmethod
    async def dial(cls, address: ReplicaAddress) -> "Caller":
        """Connect and send HELLO: of a new version, which records need, or of the oldest if that is refused."""
        try:
            return await cls._dial(address, _VERSION)
        except _Refused as refusal:
            try:
                return await cls._dial(address, OLDEST_VERSION)
            except _Refused:
                raise refusal from None

    @classmethod
    async def _dial(cls, address: ReplicaAddress, version: int) -> "Caller":
        reader, writer = await connect(address)
        try:
            writer.write(messages.encode_hello(address.token, version))
            kind, _, body = await _read_frame(reader, Splitter(MAX_REPLY_BYTES))
            if kind == Kind.ERROR:
                raise _Refused(f"{address.address} refused HELLO: {messages.decode_error(body)}")
            if kind != Kind.WELCOME:
                raise ProtocolViolation(f"{address.address} answered HELLO with {Kind(kind).name}")
            return cls(reader, writer, messages.decode_welcome(body, version))
        except BaseException:  # cancellation too: it is raised again, but the connection must not stay
            writer.transport.abort()
            raise

    @classmethod
    async def probe(cls, address: ReplicaAddress, timeout_s: float) -> "Caller":
        """Dial for a connection that only watches. Raises TimeoutError, an ``OSError``, too."""
        async with asyncio.timeout(timeout_s):
            caller = await cls.dial(address)
            try:
                # Send a PING at once: a container may serve connections that begin with PING separately, even while it
                # is busy.
                await caller.ping(timeout_s)
            except BaseException:  # as in ``dial``
                caller.close()
                raise
            return caller

    async def ping(self, timeout_s: float) -> int:
        """Return how long the replica's batch has been running, in microseconds; 0 if it is idle."""
        self._frames += 1
        self._writer.write(messages.encode_ping(self._frames))
        async with asyncio.timeout(timeout_s):
            kind, frame_id, body = await _read_frame(self._reader, self._splitter)
        if kind != Kind.PONG or frame_id != self._frames:
            raise ProtocolViolation(f"container answered PING {self._frames} with {Kind(kind).name} {frame_id}")
        return messages.decode_pong(body)

    async def predict(self, input_type: ValueType, rows: Sequence[bytes]) -> str | None:
        """Have a batch evaluated; return the model's message if a row of it failed, else None."""
        self._frames += 1
        self._splitter.max_body_bytes = MAX_BODY_BYTES
        self._writer.writelines(make_encoder(input_type).encode(self._frames, rows))
        kind, frame_id, body = await _read_frame(self._reader, self._splitter)
        if kind == Kind.ERROR and frame_id == self._frames:
            return messages.decode_error(body)
        decode = RESULTS_DECODERS.get(kind)
        if decode is None or frame_id != self._frames:
            raise ProtocolViolation(f"container answered PREDICT {self._frames} with {Kind(kind).name} {frame_id}")
        try:
            results = decode(body)
        except ModelFailed as error:
            raise ProtocolViolation(str(error)) from error
        if results.rows != len(rows):
            raise ProtocolViolation(f"container answered {results.rows} outputs for {len(rows)} inputs")
        return next(iter(results.failures.values()), None)

    def close(self) -> None:
        self._writer.transport.abort()


class _Refused(ProtocolViolation):
    """The container answered HELLO with ERROR."""


async def connect(address: ReplicaAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, over TLS if the address has a certificate."""
    scheme, _, place = address.address.partition(":")
    if scheme == "unix":
        return await asyncio.open_unix_connection(place)
    host, _, port = place.rpartition(":")
    context = pinned_context(address.certificate) if address.certificate else None
    return await asyncio.open_connection(host, int(port), ssl=context)


async def _read_frame(reader: asyncio.StreamReader, splitter: Splitter) -> Frame:
    """Read a frame. Nothing may follow it, because each frame of ours has one answer."""
    while True:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("container closed the connection")
        frames = list(splitter.feed(data))
        if frames:
            return frames[0]


# Frameworks that compile for the shape of a batch do so for one row, and again for several.
WARM_UP_ROWS = 8
# A batch of several rows is left out if it would probably take longer than this. The sample may be an input that takes
# seconds by itself, and a replica that restarts would be out of service for eight times as long.
MAX_SEVERAL_S = 2.0
# The length of open dimensions in a made row: convolutions reject much smaller lengths.
OPEN_LENGTH = 32
# The largest made row: an image of 1,024 by 1,024 pixels in three float32. Eight such rows take no more memory than
# queries do.
MAX_MADE_BYTES = 16 * 1024 * 1024
# The type of a model that does not state one: no made row is likely to be a valid input.
_UNSAID = InputType(DType.FLOAT64)

# given: the sample came with the deployment, so the model must answer it. remembered: it is the input of a recent
# query, or the sample of another version. made: it is zeros of the type that the model's file states.
Origin = Literal["given", "remembered", "made"]


@dataclass(frozen=True, slots=True)
class Sample:
    """An input to warm up with.

    ``row`` is in the form of the container protocol. ``max_batch`` bounds the rows of a batch: by the deployment, or to
    fewer if a larger batch has killed a container. ``others`` go into batches of several rows beside it.
    """

    row: bytes
    origin: Origin
    max_batch: int
    others: tuple[bytes, ...] = ()


class SampleSource(Protocol):
    """Finds the samples that versions are warmed up with, and knows facts about their inputs."""

    def known_type(self, id_: ModelId) -> str | None:
        """The type of inputs that containers of a version have said; None if none has."""

    async def find(self, id_: ModelId, input_type: ValueType) -> Sample | None:
        """Return a sample of a type for a version; None if there is none, or it should not be warmed up.

        Raises RequestError if the sample that came with the deployment is not of the type.
        """

    def has_tried(self, id_: ModelId, failure: str | None) -> None:
        """Note that a version answered a sample, or its message if it failed on a row that Clipper made."""

    def has_killed(self, id_: ModelId, rows: int) -> bool:
        """Note that a batch of ``rows`` killed a container; return whether the next start sends fewer."""


def made_row(input_type: ValueType) -> bytes | None:
    """Make a row of zeros, or a short text, in the form of the container protocol.

    With it a model loads and compiles what the first query would have to wait for. A record has such values, its
    fields' defaults and their first categories. None if no row is likely to be an input: bytes have an unknown format,
    and the type may not be stated, or be too large.
    """
    if isinstance(input_type, RecordType):
        return _made_record(input_type)
    if input_type.dtype is DType.STRING:
        return b"text"
    if input_type.dtype is DType.BYTES or input_type == _UNSAID:
        return None
    shape = [OPEN_LENGTH if length is None else length for length in input_type.shape]
    size_bytes = math.prod(shape) * input_type.dtype.size_bytes
    if size_bytes > MAX_MADE_BYTES:
        return None
    dimensions = input_type.leading_dimensions
    return struct.pack(f"<{dimensions}I", *shape[:dimensions]) + bytes(size_bytes)


def _made_record(record: RecordType) -> bytes | None:
    values = [_made_value(field) for field in record.fields]
    if any(value is None and not field.is_nullable for field, value in zip(record.fields, values)):
        return None
    row = RecordRows(record).row(values)
    return row if len(row) <= MAX_MADE_BYTES else None


def _made_value(field: Field) -> Any:
    """Make a value in the form of ``RecordRows.row``; None if none is likely to be a value of the field."""
    if field.type.shape or field.type.dtype is DType.BYTES:
        return made_row(field.type)
    value = field.categories[0] if field.categories else None
    if field.default is not None:
        value = json.loads(field.default)
    if field.type.dtype is DType.STRING:
        return b"text" if value is None else str(value).encode()
    return value or 0


def warm_up_sizes(max_batch: int, model_max_batch: int | None) -> tuple[int, ...]:
    """Return the rows of each warm-up batch: one, and then several if batches may be that large."""
    several = min(WARM_UP_ROWS, max_batch, model_max_batch or max_batch)
    return (1, several) if several > 1 else (1,)


def rows_in_time(rows: int, one_row_s: float) -> int:
    """Return the rows of the second batch, at most ``rows``, if a row takes ``one_row_s``."""
    return min(rows, int(MAX_SEVERAL_S / one_row_s)) if one_row_s > 0 else rows


async def warm_up(
    address: ReplicaAddress, welcome: Welcome, sample: Sample, on_batch: Callable[[int], None]
) -> str | None:
    """Have a container evaluate the sample, and wait until it has; return the model's message if it failed.

    The first call may take long since it loads or compiles. If it did, the sample is evaluated once more alone, before
    its time decides how many rows the second batch has. ``on_batch`` gets the rows of each batch before it is sent.
    Raises OSError if the connection fails, and ProtocolViolation.
    """
    with closing(await Caller.dial(address)) as caller:
        clock_s = asyncio.get_running_loop().time

        async def evaluate(rows: int) -> tuple[str | None, float]:
            began_s = clock_s()
            on_batch(rows)
            return await caller.predict(welcome.input_type, sent[:rows]), clock_s() - began_s

        sent = list(islice(cycle((sample.row, *sample.others)), WARM_UP_ROWS))
        one, *larger = warm_up_sizes(sample.max_batch, welcome.max_batch)
        failure, took_s = await evaluate(one)
        for rows in larger:
            if failure is None and rows_in_time(rows, took_s) < rows:
                failure, took_s = await evaluate(one)
            if failure is None and (several := rows_in_time(rows, took_s)) > 1:
                failure, _ = await evaluate(several)
        return failure
