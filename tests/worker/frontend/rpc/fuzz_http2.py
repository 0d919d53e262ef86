"""Connections of HTTP/2 as nobody should make them, for ``make fuzz``."""

import asyncio
import struct
from random import Random

from clipper.worker.frontend.rpc.service import METHODS, OBSERVE, WATCH
from clipper.worker.selection.query import NO_SOURCE
from tests.worker.frontend.inference.fuzz_infer import Answering
from tests.worker.frontend.mutations import mutated, random_edits
from tests.worker.frontend.rpc.fake_client import ASKED, OWN, FakeClient, Later, headers_of, serving
from tests.worker.frontend.rpc.http2 import PREFACE, frame, message_frame
from tests.worker.frontend.rpc.rpc_messages import INFER

PATHS = [INFER] * 8 + [method.path for method in METHODS.values()] + [OBSERVE.path, WATCH.path, "/x", ""]
PATHS += [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
FIELDS = [
    ("grpc-timeout", "1H"),
    ("grpc-timeout", "0n"),
    ("grpc-timeout", "999999999S"),
    ("grpc-encoding", "gzip"),
    ("grpc-encoding", "deflate"),
    ("grpc-encoding", "br"),
    ("authorization", "Bearer x"),
    ("content-length", "5"),
    ("content-length", str(len(ASKED) + 5)),
    ("content-type", "text/html"),
    (":path", "/x"),
    ("x", "y" * 3000),
    ("x-bin", "AAAA"),
    ("te", "gzip"),
]
FRAGMENTS = [
    b"\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\0\x08\x06\0\0\0\0\0",
    b"\0\0\x04\x03\0\0\0\0\x01",
    b"\0\0\0\x04\x01\0\0\0\0",
]
FRAGMENTS += [PREFACE, frame(8, 0, 0, b"\x7f\xff\xff\xff"), frame(7, 0, 0, bytes(8)), frame(9, 4, 1, b"\x82")]


def answer(later: Later, random: Random, count: int) -> None:
    """Answer some queries, in any order."""
    for _ in range(min(count, len(later.waiting))):
        query = later.waiting.pop(random.randrange(len(later.waiting)))
        asker, query.asker = query.asker, None
        if asker is None:
            continue
        match random.randrange(8):
            case 0:
                asker.on_no_prediction(1, random.choice(["timeout", "model_error", "no_replica"]), "wéll\n%")
            case 1:
                asker.on_prediction(1, b'"%b"' % (b"x" * random.choice([10, 70_000, 3_000_000])), 1.0, NO_SOURCE)
            case _:
                asker.on_prediction(1, b"1.5", 1.0, NO_SOURCE)


def try_http2(number: int) -> None:
    """Whatever comes as a connection leaves nothing behind, harms no other connection, and is answered in HTTP/2."""
    asyncio.run(_connection(Random(number)))


async def _connection(random: Random) -> None:
    application = Later() if random.random() < 0.6 else Answering(OWN, None, b"1.5")
    server = serving(application=application)
    settings = {4: random.choice([0, 1, 100, 65_535, 1 << 20])} if random.random() < 0.3 else {}
    client = FakeClient(server, settings=settings)
    if random.random() < 0.3:
        server.port.budget.bound_bytes = random.choice([0, 1000, 100_000])
    data = b"".join(_sent(random, client, each) for each in range(random.randint(1, 12)))
    if random.random() < 0.4:
        data = mutated(data, random_edits(random, FRAGMENTS))
    while data:
        size = random.choice([1, 9, 20, 100, 20_000, len(data)])
        client.send(data[:size])
        data = data[size:]
        match random.randrange(12):
            case 0:
                await asyncio.sleep(0)
            case 1 if isinstance(application, Later):
                answer(application, random, random.randint(1, 9))
            case 2:
                server.port.sweeps += random.choice([1, 5, 35, 61])
                client.connection.sweep(server.port.sweeps)
            case 3 if not client.transport.is_closed:
                client.connection.pause_writing()
                await asyncio.sleep(0)
                client.connection.resume_writing()
            case 4 if random.random() < 0.2:
                server.port.is_draining = True
                client.connection.announce_end()
                client.connection.begin_end()
    if isinstance(application, Later) and random.random() < 0.8:
        answer(application, random, 1000)
    if random.random() < 0.3 and not client.transport.is_closed:
        client.connection.eof_received()
    await client.answers()  # what was written is frames, and heads that can be read
    server.port.budget.bound_bytes = 1 << 28
    server.port.is_draining = False
    server.serve(serving().services)
    other = FakeClient(server)
    other.call(1)
    assert (await other.answers())[1]["grpc-status"] == "0"
    for each in (client, other):
        each.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    counts = server.counts
    assert counts.open == counts.streaming == counts.in_flight == 0, vars(counts)
    assert server.port.budget.held_bytes == 0, server.port.budget.held_bytes
    assert not server.connections and not server.port.members


def _sent(random: Random, client: FakeClient, index: int) -> bytes:
    """Frames of a call, or some that no call has."""
    stream = random.choice([2 * index + 1] * 9 + [random.randrange(40)])
    match random.randrange(10):
        case 0:
            size = random.choice([0, 4, 5, 6, 8, 12])
            return frame(random.randrange(12), random.randrange(256), stream % 9, random.randbytes(size))
        case 1:
            return frame(
                8, 0, random.choice([0, stream]), struct.pack(">I", random.choice([1, 100, 70_000, 2**31 - 1]))
            )
        case 2:
            kind, value = random.randint(1, 9), random.choice([0, 1, 2, 100, 16_384, 2**31 - 1, 2**32 - 1])
            return frame(4, 0, 0, struct.pack(">HI", kind, value))
    fields = headers_of(random.choice(PATHS))
    fields += random.sample(FIELDS, random.choice([0, 0, 0, 1, 2]))
    sent = client.headers(stream or 1, fields, ["END_HEADERS"] + ["END_STREAM"] * (random.random() < 0.1)).serialize()
    for _ in range(random.choice([0, 1, 1, 1, 2, 5])):
        message = random.choice([ASKED, ASKED, ASKED, b"", b"\x0a\x03app", random.randbytes(9)])
        data = message_frame(message)
        if random.random() < 0.1:
            data = bytes((random.choice([1, 2]),)) + data[1:]
        if random.random() < 0.1:
            data = data[:1] + random.choice([b"\xff\xff\xff\xff", b"\0\x7f\0\0", b"\0\0\0\x01"]) + data[5:]
        cut = random.choice([len(data), len(data), random.randrange(len(data) + 1)])
        sent += frame(0, 0, stream, data[:cut]) + (frame(0, 0, stream, data[cut:]) if cut < len(data) else b"")
    match random.randrange(6):
        case 0:
            sent += frame(3, 0, stream, struct.pack(">I", random.randrange(14)))
        case 1:
            pass
        case _:
            sent += frame(0, 1, stream)
    return sent
