"""Attacks of ``make fuzz`` on the control channel over TCP: peers that lie, made of a number alone."""

import asyncio
import contextlib
import struct
import tempfile
from pathlib import Path
from random import Random

from clipper.control.difference import EPOCH_BITS, Difference
from clipper.control.feedback import Feedback
from clipper.control.identity import PeerName
from clipper.control.messages import (
    MAX_MESSAGE_BYTES,
    AnyCommand,
    Apply,
    ApplyDifference,
    DescribePolicy,
    Drain,
    GetRecentInput,
    GetStatistics,
    Observe,
    RecentInput,
    encode,
)
from clipper.control.snapshot import ApplicationSnapshot, Peer, Snapshot
from clipper.values.types import ModelId
from tests.control_channel import LEADS, OTHER, Listening, contexts, listening
from tests.fuzz_tls import FRAGMENTS as TLS_FRAGMENTS
from tests.worker.frontend.http_calls import cut
from tests.worker.frontend.mutations import mutated, random_edits

# Sizes that are right and wrong, tags, and what MessagePack says of longer things than there are.
FRAGMENTS = [struct.pack("<I", size) for size in (0, 1, 40, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1, 0xFFFFFFFF)]
FRAGMENTS += [b"\xa4type", b"\xa5Apply", b"\xa5Drain", b"\xa5epoch", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
FRAGMENTS += [b"\xc6\xff\xff\xff\xff", b"\xc0", b"\xc1", b"\x91" * 200, b"\xcf" + b"\xff" * 8, b"\xff"]
MAX_CUTS, MAX_COMMANDS = 6, 4
# One that another supervisor has replaced.
BEFORE = PeerName("supervisor", LEADS.number - 1)
NOW_LED = Apply(Snapshot((LEADS.number << EPOCH_BITS) + 1))


def try_control(number: int) -> None:
    """Whatever a stranger, a worker or a supervisor sends over TCP, nobody is obeyed who may not be."""
    asyncio.run(_lie(Random(number)))


def _command(random: Random) -> AnyCommand:
    generation = (random.randrange(6) << EPOCH_BITS) + random.randrange(4)
    return random.choice(
        [
            Apply(Snapshot(generation, (ApplicationSnapshot("a", "string", 20.0),), peers=(Peer(1, "tcp:h:1"),))),
            ApplyDifference(Difference(generation, generation + 1)),
            Drain(random.choice([None, 0, 2, 3, 9])),
            Observe("a", (Feedback("i", random.randrange(1 << 40), label=b"1"),) * random.randint(0, 3)),
            GetStatistics(),
            GetStatistics(("a",), (ModelId("m", "1"),), ((1,), (2,))),
            DescribePolicy("a", "c"),
            GetRecentInput("m"),
        ]
    )


async def _lie(random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await _lie_to(Path(folder), random)


async def _lie_to(folder: Path, random: Random) -> None:
    async with listening(folder) as worker:
        await worker.ask(NOW_LED, contexts(LEADS).dialling)
        worker.took.clear()
        caller = random.choice([None, OTHER, BEFORE, LEADS])
        data = b"".join(encode(_command(random)) for _ in range(random.randint(1, MAX_COMMANDS)))
        if random.random() < 0.8:
            data = mutated(data, random_edits(random, FRAGMENTS if caller is not None else TLS_FRAGMENTS))
        with contextlib.suppress(OSError):
            await _send(worker, caller, cut(data, [random.randrange(1 << 16) for _ in range(MAX_CUTS)]), random)
        if caller is None:
            assert worker.took == []
        elif caller == OTHER:
            assert all(isinstance(command, Observe | GetStatistics) for command in worker.took)
        elif caller == BEFORE:
            assert not any(isinstance(command, Apply | ApplyDifference | Drain) for command in worker.took)
        assert await worker.ask(GetRecentInput("m"), contexts(LEADS).dialling) == RecentInput()
        while worker.server._connections > 0:
            await asyncio.sleep(0)
        assert not worker.server._partial


async def _send(worker: Listening, caller: PeerName | None, parts: list[bytes], random: Random) -> None:
    context = None if caller is None else contexts(caller).dialling
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.address.port, ssl=context)
    try:
        for part in parts:
            writer.write(part)
            if random.random() < 0.5:
                await writer.drain()
                await asyncio.sleep(0)
        if random.random() < 0.5:
            writer.write(encode(GetRecentInput("m")))
            async with asyncio.timeout(0.02):
                await reader.read(1 << 16)
    finally:
        writer.transport.abort()


TRIES = {"control": try_control}
