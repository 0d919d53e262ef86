"""Calls by gRPC as nobody should send them, for ``make fuzz``."""

import asyncio
from random import Random
from typing import Any, cast

from clipper.values.records import ValueType, parse_type
from clipper.values.types import InputType
from clipper.worker.frontend.inference.tensors import DATATYPES, datatype_of
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.frontend.rpc.answers import RESPONSE
from clipper.worker.frontend.rpc.calls import Call
from clipper.worker.frontend.rpc.contents import FIELD_OF
from clipper.worker.frontend.rpc.requests import REQUEST
from clipper.worker.frontend.rpc.service import METHODS, Services
from clipper.worker.frontend.rpc.statuses import STATUSES, Refused
from clipper.worker.frontend.rpc.stream import Rest
from clipper.worker.frontend.rpc.wire import decode, encode
from tests.worker.frontend.fake_transport import standing_port
from tests.worker.frontend.inference.fuzz_infer import TYPES, Answering, check_row, fields_of, serving
from tests.worker.frontend.mutations import mutated, random_edits

SIZES = [0, 1, 2, 3, 4, -1, 2**31, 2**62, -(2**63), 10_000, 10_001]
FRAGMENTS = [
    b"\0",
    b"\xff",
    b"\xff" * 10,
    b"\x2a\0",
    b"\x3a\0",
    b"\x22\0",
    b"\x0a\x03app",
    b"\x1a\x01\x01",
    b"\x80" * 9,
]
VALUES: list[dict[str, Any]] = [
    {"int64_param": 0},
    {"int64_param": -5},
    {"int64_param": 10**9},
    {"string_param": "text"},
    {"bool_param": True},
    {"double_param": 1.5},
    {"uint64_param": 2**64 - 1},
    {},
]
NAMES = ["timeout", "context", "sequence_id", "priority", "binary_data_output", "shared_memory_region", "more"]


class Ended:
    """How a call ended; it ends once."""

    def __init__(self) -> None:
        self.reply: bytes | None = None
        self.refused: Refused | None = None

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        assert self.reply is None and self.refused is None
        self.reply = b"".join((message, *rest))

    def on_refusal(self, refused: Refused) -> None:
        assert self.reply is None and self.refused is None
        self.refused = refused


def try_call(number: int) -> None:
    """Whatever comes as a call is answered or refused with a code; rows that are asked are of the type."""
    random = Random(number)
    asyncio.run(_call(random))


async def _call(random: Random) -> None:
    input_type = parse_type(random.choice(TYPES))
    output = random.choice([b"1", b"1.5", b"true", b"[1,2.5]", b'{"a":"\xc3\xbc"}', b'"a"', b"[[1],[2,3]]", None])
    application = Answering(input_type, random.choice([None, None, 2]), output)
    port = standing_port()
    services = Services(serving(application, port, Readiness([cast(Any, application)])))
    path, message = METHODS["ModelInfer"].path, _request(random, input_type)
    if random.random() < 0.1:
        path, message = random.choice(list(services.unary)), random.choice([message, b"", random.randbytes(9)])
    for _ in range(random.randint(1, 3)):
        ended = Ended()
        call = Call(port, ended, message, (), random.choice([None, None, port.now_s() + 5, port.now_s()]))
        before = len(application.rows)
        call.run(services.unary[path])
        for _ in range(100):  # some of it takes a few turns
            if ended.reply is None and ended.refused is None:
                await asyncio.sleep(0)
        if ended.refused is not None:
            assert ended.refused.code in STATUSES and ended.refused.code != "internal_error", ended.refused
        else:
            assert ended.reply is not None
            if path == METHODS["ModelInfer"].path:
                found = decode(RESPONSE, memoryview(ended.reply), 1 << 20)
                assert found["model_name"] == "app" and found["outputs"], found
        for row in application.rows[before:]:
            check_row(row, input_type)
    for _ in range(3):  # what an answer came of has ended a turn later
        await asyncio.sleep(0)
    assert port.budget.held_bytes == 0, port.budget.held_bytes


def _request(random: Random, input_type: ValueType) -> bytes:
    """An infer request for the type, or nearly of one."""
    inputs, raw = [], []
    is_raw = random.random() < 0.5
    fields = fields_of(random, input_type)
    for name in [*fields, *["features"] * (random.random() < 0.4), *["x"] * (random.random() < 0.05)]:
        of = fields.get(name) or InputType.parse("float64[2]")
        tensor, data = _tensor(random, name, of, is_raw if random.random() < 0.97 else not is_raw)
        inputs.append(tensor)
        raw += data
    values: dict[str, Any] = {"model_name": "app", "inputs": inputs, "raw_input_contents": raw}
    if random.random() < 0.2:
        values["parameters"] = _parameters(random)
    if random.random() < 0.2:
        names = random.choices(["output", "query_id", "default", "confidence", "nothing"], k=random.randint(0, 3))
        values["outputs"] = [{"name": name, "parameters": _parameters(random)} for name in names]
    if random.random() < 0.3:
        values["id"] = random.choice(["i", "i" * 201])
    if random.random() < 0.1:
        values["model_version"] = random.choice(["1", "9"])
    message = encode(REQUEST, values)
    return mutated(message, random_edits(random, FRAGMENTS)) if random.random() < 0.3 else message


def _tensor(random: Random, name: str, input_type: InputType, is_raw: bool) -> tuple[dict[str, Any], list[bytes]]:
    shape = [random.choice([1, 1, 1, 2, 3]), *(size or random.randint(0, 3) for size in input_type.shape)]
    datatype = datatype_of(input_type.dtype).name
    if random.random() < 0.1:
        datatype = random.choice([*DATATYPES, "FP8", ""])
    elements = 1
    for size in shape:
        elements *= size
    if random.random() < 0.1:
        shape[random.randrange(len(shape))] = random.choice(SIZES)
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    size_bytes = DATATYPES.get(datatype, DATATYPES["FP32"]).size_bytes
    if is_raw:
        text = random.choice([b"", b"abc", b"\xff", b"x" * 70_000])
        parts = (len(text).to_bytes(4, "little") + text) * elements
        return tensor, [parts if datatype == "BYTES" else random.randbytes(elements * size_bytes)]
    element: Any = random.choice([b"a", b"\xff"]) if datatype == "BYTES" else random.choice([0, 1, 1, 300])
    tensor["contents"] = {FIELD_OF.get(datatype, "fp32_contents"): [element] * elements}
    return tensor, []


def _parameters(random: Random) -> dict[str, Any]:
    return {name: random.choice(VALUES) for name in random.choices(NAMES, k=random.randint(0, 2))}
