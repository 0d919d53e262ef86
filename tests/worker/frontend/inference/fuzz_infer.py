"""Infer requests as nobody should send them, for ``make fuzz``."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Sequence
from random import Random
from typing import Any, cast

from clipper.control.feedback import Feedback, Outcome
from clipper.control.snapshot import ApplicationSnapshot
from clipper.control.statistics import WorkerStatistics
from clipper.values.inputs.reader import Reader
from clipper.values.inputs.record_reader import reader_of
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.json_types import NoType
from clipper.values.outputs.conversion import Conversion, learning
from clipper.values.records import RecordType, ValueType, parse_type, with_open_lengths
from clipper.values.types import InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.clients import Clients
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.inference.service import Inference, Serving, StatisticsReader
from clipper.worker.frontend.inference.tensors import DATATYPES, datatype_of
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.selection.query import NO_SOURCE
from tests.serving import post
from tests.worker.frontend.fake_transport import Peer, standing_port
from tests.worker.frontend.http_calls import cut
from tests.worker.frontend.mutations import mutated, random_edits
from tests.worker.frontend.steps import finish

TYPES = ["float64[*]", "float32[3]", "float64[2,*]", "int32[]", "int64[2]", "uint8[2,2]", "bool[*]", "string", "bytes"]
TYPES += ['a: float64?, b: string{"a","ü"}?, c: int32 = 1', "t: float32[2], u: uint8[2,*], s: bytes, k: bool"]
SIZES: list[Any] = [0, 1, 1, 1, 2, 3, 4, -1, 2**31, 2**63, 2**64, 10_000, 10_001, 1.5, "3", None, True]
PARAMETERS: list[Any] = ["binary_data_size", "binary_data_output", "timeout", "context", "sequence_id", "priority"]
PARAMETERS += ["shared_memory_region", "classification", "binary_data", "more"]
FRAGMENTS = [b'"', b"[", b"]", b"{", b"}", b",", b":", b"\0", b"\xff", b"null", b'"inputs":', b'"shape":[', b"1e999"]
FRAGMENTS += [b'"data":', b"NaN", b"[" * 50, b"9" * 25, b"\\ud800", b'"BYTES"', b"\xff\xff\xff\xff", b"true"]
LENGTHS = ["-1", "0", "1", str(2**31), str(2**63), str(2**64), "x", "", " 5", "0x10", "1e3", "5, 5"]
PATHS = ["/v2/models/app/infer"] * 50 + ["/v2/models/app/versions/1/infer", "/v2/models/app/versions/9/infer"]
PATHS += ["/v2/models/other/infer", "/v2/models/app/observe", "/v2/repository/index", "/v2/models/%00/infer", "/v2//"]


class Terms:
    slo_s = 1.0
    is_ready = True
    features_are_input = null_is_nan = ignores_unknown_fields = nan_as_text = False
    max_batch = 1

    def __init__(self, input_type: ValueType, features_size: int | None, output: bytes | None = None) -> None:
        self.input_type, self.features_size, self.output = input_type, features_size, output

    def make_reader(self, *, ignores_unknown: bool = False) -> Reader:
        return reader_of(self.input_type)

    def versions(self) -> dict[str, dict[str, bool]]:
        return {"1": {"m": True}}

    def outputs(self, version: str | None) -> Conversion | None:
        try:
            learned = None if self.output is None else finish(learning(self.output))
        except NoType:
            return None
        return None if learned is None else Conversion(with_open_lengths(learned), is_declared=False)


class Answering:
    """An application that answers at once, or not at all."""

    name = "app"
    done = True
    snapshot = ApplicationSnapshot("app", "bytes", 1.0)

    def __init__(self, input_type: ValueType, features_size: int | None, output: bytes | None) -> None:
        self.terms, self._output = Terms(input_type, features_size, output), output
        self.rows: list[bytes] = []

    @property
    def is_ready(self) -> bool:
        return self.terms.is_ready

    def predict(self, row: bytes, asker: Any, *_: object) -> "Answering":
        self.rows.append(row)
        if self._output is None:
            asker.on_no_prediction(1, "model_error", "it failed")
        else:
            asker.on_prediction(1, self._output, 1.0, NO_SOURCE)
        return self

    def cancel(self) -> None:
        """It has answered."""


class Taker:
    async def observe(self, application: object, feedback: Sequence[Feedback]) -> list[Outcome]:
        return [Outcome()] * len(feedback)


async def no_statistics(versions: object) -> Sequence[WorkerStatistics]:
    return []


def serving(application: Any, port: Port, readiness: Readiness) -> Serving:
    """The parts that fronts of one application share."""
    return Serving(
        applications={application.name: application},
        taker=Taker(),
        statistics=StatisticsReader(no_statistics, port.work),
        port=port,
        clients=Clients(0, port.now_s),
        readiness=readiness,
        max_body_bytes=limits.MAX_BODY_BYTES,
    )


def try_infer(number: int) -> None:
    """Whatever comes as an infer request is answered, and never with 500; rows that are asked are of the type."""
    random = Random(number)
    asyncio.run(_send(random))


async def _send(random: Random) -> None:
    input_type = parse_type(random.choice(TYPES))
    output = random.choice([b"1", b"[1,2.5]", b'{"a":"\xc3\xbc"}', b"null", b"[[1],[2,3]]", b"1e999", None])
    application = Answering(input_type, random.choice([None, None, 2]), output)
    port = standing_port()
    port.serve({}, Inference(serving(application, port, Readiness([cast(Any, application)]))))
    for _ in range(random.randint(1, 4)):
        peer = Peer(port)
        request = infer_request(random, input_type)
        data = post(request[0], request[1], **request[2])
        before = len(application.rows)
        await peer.send_in_turns(cut(data, [random.randrange(1 << 16) for _ in range(random.randint(0, 3))]))
        for _ in range(2000):
            if peer.responses:
                break
            await asyncio.sleep(0)
        (answer,) = peer.responses
        assert answer.status in (200, 400, 404, 405, 413, 415, 501, 502), answer
        assert answer.status == 200 or answer.json["error"], answer
        for row in application.rows[before:]:
            check_row(row, input_type)
        peer.connection.eof_received()
        peer.leave()
    await asyncio.sleep(0)
    assert port.budget.held_bytes == 0


def check_row(row: bytes, input_type: ValueType) -> None:
    """A row that is asked is of the type."""
    if isinstance(input_type, RecordType):
        assert RecordRows(input_type).values(row)
    else:
        assert input_type.row_bytes in (None, len(row)), row


def fields_of(random: Random, input_type: ValueType) -> dict[str, InputType]:
    """The tensors of an input by name, or most of them."""
    if isinstance(input_type, RecordType):
        return {field.name: field.type for field in input_type.fields if random.random() < 0.95}
    return {"input": input_type}


def infer_request(random: Random, input_type: ValueType) -> tuple[str, bytes, dict[str, str]]:
    """A path, a body and headers, of an infer request for the type, or nearly of one."""
    tensors = b""
    inputs = []
    takes_features = random.random() < 0.4
    fields = fields_of(random, input_type)
    for kind in [*fields, *["features"] * takes_features, *["x"] * (random.random() < 0.05)]:
        of = fields.get(kind) or InputType.parse("float64[2]")
        tensor, data = _tensor(random, kind, of)
        inputs.append(tensor)
        tensors += data
    head: dict[str, Any] = {"inputs": inputs}
    if random.random() < 0.15:
        head["parameters"] = _parameters(random)
    if random.random() < 0.2:
        names = random.choices(["output", "query_id", "default", "confidence", "nothing"], k=random.randint(0, 3))
        head["outputs"] = [
            {"name": name, "parameters": _parameters(random) if random.random() < 0.2 else {}} for name in names
        ]
    if random.random() < 0.3:
        head["id"] = random.choice(["i", "i", "", None, "i" * 201, 5])
    text = json.dumps(head).encode()
    if random.random() < 0.12:
        text = mutated(text, random_edits(random, FRAGMENTS))
    headers = {}
    if tensors or random.random() < 0.3:
        headers["Inference_Header_Content_Length"] = str(len(text)) if random.random() < 0.8 else random.choice(LENGTHS)
    body = text + tensors
    if random.random() < 0.07:
        body = mutated(body, random_edits(random, FRAGMENTS))
    if random.random() < 0.2:
        name, compress = random.choice(
            [("gzip", gzip.compress), ("deflate", zlib.compress)] * 9 + [("br", zlib.compress)]
        )
        headers["Content_Encoding"] = name
        body = compress(random.choice([body, bytes(20_000_000) if random.random() < 0.02 else body]))
        body = mutated(body, random_edits(random, FRAGMENTS)) if random.random() < 0.3 else body
    return random.choice(PATHS), body, headers


def _tensor(random: Random, name: str, input_type: InputType) -> tuple[dict[str, Any], bytes]:
    count = random.choice([1, 1, 1, 2, 3])
    shape: list[Any] = [count, *(size or random.randint(0, 3) for size in input_type.shape)]
    own = datatype_of(input_type.dtype).name
    datatype = own if random.random() < 0.9 else random.choice([*DATATYPES, "FP8", ""])
    if random.random() < 0.1:
        shape[random.randrange(len(shape))] = random.choice(SIZES)
    if random.random() < 0.01:
        shape = [1] * 100_000
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    elements = 1
    for size in shape[:20]:
        elements = max(elements * size, 0) if isinstance(size, int) and size < 100 else 1
    if random.random() < 0.5:
        element: Any = (
            random.choice(["a", "ü"])
            if datatype == "BYTES"
            else random.choice([0, 1, 1, True] if datatype == "BOOL" else [0, 1, 1, 2, 300, 1.5])
        )
        data: Any = [element] * elements
        tensor["data"] = [data] if random.random() < 0.2 else data
        return tensor, b""
    size_bytes = DATATYPES.get(datatype, DATATYPES["FP32"]).size_bytes
    text = random.choice([b"", b"abc", b"\xff", b"x" * 70_000])
    parts = (len(text).to_bytes(4, "little") + text) * elements
    raw = parts if datatype == "BYTES" else random.choice([bytes, random.randbytes])(elements * size_bytes)
    size = len(raw) if random.random() < 0.95 else random.choice(SIZES)
    tensor["parameters"] = {"binary_data_size": size}
    return tensor, raw


def _parameters(random: Random) -> dict[str, Any]:
    names = random.choices(PARAMETERS, k=random.randint(0, 2))
    return {name: random.choice([0, 1, -1, True, False, "text", [], {}, None, 1.5, 2**70, 1000]) for name in names}
