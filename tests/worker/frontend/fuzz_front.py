"""Tries of ``make fuzz`` on the query port: each try is made of its number alone, so that a number is all to keep."""

import asyncio
import base64
import hashlib
import json
from random import Random
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.control.snapshot import ApplicationSnapshot, KeySnapshot, Snapshot
from clipper.errors import ClipperError, RequestError
from clipper.values.inputs import json_parts, long_text
from clipper.values.inputs.json_parts import find_fields
from clipper.values.inputs.record_reader import reader_of
from clipper.values.records import RecordType, parse_type
from clipper.worker.frontend import observe_body, predict_body
from clipper.worker.frontend.clients import Clients, Guarded
from clipper.worker.frontend.http.endpoints import live
from clipper.worker.frontend.predict_request import PredictBody
from tests.serving import post
from tests.worker.frontend.fake_transport import Echo, Peer, standing_port
from tests.worker.frontend.http_calls import ECHO, HELLO, cut
from tests.worker.frontend.inference.fuzz_infer import try_infer
from tests.worker.frontend.mutations import mutated, random_edits
from tests.worker.frontend.rpc.fuzz_http2 import try_http2
from tests.worker.frontend.rpc.fuzz_rpc import try_call
from tests.worker.frontend.steps import finish

TYPES = ["float64[*]", "float64", "float64[3]", "float64[2,*]", "float32[*,*]", "int32[*]", "int64[2]", "uint8[2,2]"]
TYPES += ["bool[*]", "bool[2,2]", "string", "bytes", "int32[]"]
TYPES += [
    'a: float64?, "é \\\\ x": string, k: int32 = 1, c: string{"a","é"}?, t: float32[2]?',
    "b: bool, y: bytes?, u: uint8[2,2]",
]
LEAVES: list[Any] = [0, 1, -1, 1.0, 0.5, 255, 256, 2**31, 2**63, 2**64, 1e39, 1e308, True, False, None, "", "a", "AAAA"]
LEAVES += ["\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), '\\"', {}, [], "é" * 9, 10**19, 1e-320]
# Values of features, and how many of them an application expects.
NUMBERS: list[Any] = [0, 1, -1, 0.5, 1e308, 5e-324]
FEATURES = 3
FRAGMENTS = [
    b'"',
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b" ",
    b"\\u",
    b"\\ud83d",
    b"\xff",
    b"\0",
    b"1e999",
    b"-",
    b"[]",
]
FRAGMENTS += [b"null", b"NaN", b'"input":', b'"context":', b"\\\\", b"=", b"1" * 30, "😀".encode()]
HEADS = [b"GET /health/live HTTP/1.1\r\n\r\n", post("/echo/predict?a=b", b"hello"), post("/nowhere", b"x"), ECHO]
HEADS += [b"POST /echo/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
HEADS += [b"POST /echo/predict HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"]
HTTP_FRAGMENTS = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\0",
    b":",
    b"HTTP/1.1",
    b"Content-Length: 5\r\n",
    b"\xff\xfe",
    b"9" * 20,
]
HTTP_FRAGMENTS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"Expect: 100-continue\r\n",
]

KEY = "k" * 43
AUTHORIZATION_FRAGMENTS = [
    b"Bearer",
    b"bEARER ",
    b"Basic ",
    b" ",
    b"\t",
    b"\0",
    b"\xff",
    b"\r\n ",
    b"\r\n",
    b",",
    b"=",
    b"k" * 5000,
    KEY.encode(),
    b"Authorization:",
]

KNOWN = {*PredictBody.__struct_fields__, *observe_body.ObserveBody.__struct_fields__, "observations"}


def try_http(number: int) -> None:
    """Garbled requests hurt no request before them, and nobody after."""
    random = Random(number)
    garbled = garbled_requests(random)
    asyncio.run(_send_garbled(cut(garbled, [random.randrange(1 << 16) for _ in range(random.randint(0, 6))])))


def garbled_requests(random: Random) -> bytes:
    """Up to four requests of which at least one byte is not as it was."""
    return mutated(b"".join(random.choices(HEADS, k=random.randint(1, 4))), random_edits(random, HTTP_FRAGMENTS))


async def _send_garbled(parts: list[bytes]) -> None:
    port = standing_port()
    port.serve({b"/echo/predict": Echo(), b"/health/live": live()})
    peer = Peer(port)
    peer.send(ECHO)
    await peer.send_in_turns(parts)
    answers = peer.responses
    assert answers[0].body == HELLO
    assert all(each.status != 500 for each in answers)
    peer.connection.eof_received()
    peer.leave()
    after = Peer(port)
    after.send(ECHO)
    assert [response.body for response in after.responses] == [HELLO]
    assert (len(port.members), port.budget.held_bytes) == (1, 0)


def try_authorization(number: int) -> None:
    """A client with a key is let in, within its limits, and no other client; whatever clients show harms nobody."""
    random = Random(number)
    asyncio.run(_show(random, [authorization_for(random, KEY) for _ in range(random.randint(1, 6))]))


def authorization_for(random: Random, key: str) -> bytes:
    """The credentials of a client that has the key, or nearly: whole lines of a head."""
    good = b"Authorization: Bearer " + key.encode()
    if random.random() < 0.3:
        return good + b"\r\n"
    shown = random.choice([good, b"authorization:bearer\t" + key.encode(), good + b" ", b"Authorization: Basic YTpi"])
    shown = mutated(shown, random_edits(random, AUTHORIZATION_FRAGMENTS)) if random.random() < 0.8 else shown
    return (shown + b"\r\n") * random.choice([1, 1, 1, 2])


async def _show(random: Random, shown: list[bytes]) -> None:
    port = standing_port()
    clients = Clients(0, port.now_s)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    limited = random.random() < 0.5
    key = KeySnapshot("k", digest, max_in_flight=2 if limited else None, max_per_second=3.0 if limited else None)
    clients.follow(Snapshot(1, applications=(ApplicationSnapshot("echo", "bytes", 1.0, needs_key=True),), keys=(key,)))
    port.serve({b"/echo/predict": Guarded("echo", True, Echo(), clients)})
    head, _, body = ECHO.partition(b"\r\n\r\n")
    for lines in shown:
        peer = Peer(port)
        await peer.send_in_turns(cut(head + b"\r\n" + lines + b"\r\n" + body, [random.randrange(1 << 16)]))
        for answer in peer.responses:
            assert answer.status != 500, lines
            assert answer.status not in (200, 429) or KEY.encode() in lines, lines
        peer.connection.eof_received()
        peer.leave()
    after = Peer(port)
    # In turns, since what others sent may still wait at the door.
    await after.send_in_turns([head + b"\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n" + body])
    assert [response.status in (200, 429) if limited else response.body == HELLO for response in after.responses] == [
        True
    ]
    assert (len(port.members), port.budget.held_bytes) == (1, 0)


def try_predict_body(number: int) -> None:
    """A body is read in pieces as it is at once, or refused for what is told in the documentation."""
    random = Random(number)
    name = random.choice(TYPES)
    brings, takes = _features_of(number)
    body = predict_body_for(random, name, brings_features=brings)
    _compare(body, _read_predict(name, takes, body, in_pieces=False), _read_predict(name, takes, body, in_pieces=True))


def _features_of(number: int) -> tuple[bool, int | None]:
    """Whether a try's body brings features for the policy, and how many its application takes."""
    return number % 3 == 1, FEATURES if number % 6 == 1 else None


def predict_body_for(random: Random, name: str, *, brings_features: bool = False) -> bytes:
    """A body for an application of the type, or nearly one."""
    fields: dict[str, Any] = {}
    for _ in range(random.randint(1, 3)):
        match random.randrange(4):
            case 0:
                fields["input_batch"] = [_value(random, name) for _ in range(random.randint(0, 4))]
            case 1 | 2:
                fields["input"] = _value(random, name)
            case _:
                fields[random.choice(["context", "uid", "version"])] = random.choice([*LEAVES, "c" * 1001])
    if brings_features:
        batch = fields.get("input_batch")
        fields["features"] = _features(random, None if batch is None else len(batch) + random.choice([0, 0, 0, 1]))
    return _garbled(random, fields)


def _features(random: Random, count: int | None) -> Any:
    """Of one query, or of each of so many; or nearly."""
    if random.random() < 0.1:
        return random.choice(LEAVES)
    if count is not None:
        return [_features(random, None) for _ in range(count)]
    size = random.choice([FEATURES] * 8 + [0, 1, FEATURES + 1])
    return [random.choice(LEAVES if random.random() < 0.03 else NUMBERS) for _ in range(size)]


def try_observe_body(number: int) -> None:
    """As predict bodies."""
    random = Random(number)
    name = random.choice(TYPES)
    brings, takes = _features_of(number)
    body = observe_body_for(random, name, brings_features=brings)
    _compare(body, _read_observe(name, takes, body, in_pieces=False), _read_observe(name, takes, body, in_pieces=True))


def observe_body_for(random: Random, name: str, *, brings_features: bool = False) -> bytes:
    """Feedback to an application of the type, or nearly."""
    pieces = []
    for _ in range(random.randint(1, 3)):
        piece: dict[str, Any] = {random.choice(["label", "label", "reward"]): random.choice(LEAVES)}
        piece |= {"input": _value(random, name)} if random.random() < 0.5 else {"query_id": random.choice(LEAVES[:9])}
        if random.random() < 0.3:
            piece[random.choice(["id", "context", "uid"])] = random.choice([*LEAVES, "i" * 201])
        if brings_features:
            piece["features"] = _features(random, None)
        pieces.append(piece)
    return _garbled(random, {"observations": pieces} if random.random() < 0.5 else pieces[0])


def _value(random: Random, name: str) -> Any:
    """An input of the type, or nearly."""
    if random.random() < 0.1:
        return random.choice(LEAVES)
    input_type = parse_type(name)
    if isinstance(input_type, RecordType):
        found = {
            field.name: None if random.random() < 0.1 else _value(random, str(field.type))
            for field in input_type.fields
            if not random.random() < 0.05
        }
        return found | ({random.choice(["z", "", "\0", "é" * 200]): 1} if random.random() < 0.05 else {})
    if name == "string":
        return "".join(random.choices(["a", "é", "😀", '"', "\\", "\n", "\0", "/"], k=random.randint(0, 40)))
    if name == "bytes" or (name == "uint8[2,2]" and random.random() < 0.5):
        return base64.b64encode(random.randbytes(random.choice([4, random.randint(0, 60)]))).decode()

    def lists(shape: tuple[int | None, ...]) -> Any:
        if not shape:
            return random.choice(LEAVES if random.random() < 0.03 else LEAVES[:6])
        return [lists(shape[1:]) for _ in range(shape[0] or length)]

    length = random.randint(0, 12)
    return lists(input_type.shape)


def _garbled(random: Random, fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, ensure_ascii=random.random() < 0.5, indent=random.choice([None, None, 1]))
    body = text.encode("utf-8", "surrogatepass")
    return body if random.random() < 0.4 else mutated(body, random_edits(random, FRAGMENTS))


def _read_predict(name: str, features_size: int | None, body: bytes, in_pieces: bool) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if in_pieces:
            _shorten(patch)
        try:
            request = finish(predict_body.BodyReader(reader_of(parse_type(name)), features_size).read(body))
        except RequestError as error:
            return error
    return request.rows, request.is_batch, request.context, request.version, list(request.features)


def _read_observe(name: str, features_size: int | None, body: bytes, in_pieces: bool) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if in_pieces:
            _shorten(patch)
        try:
            found, is_list = finish(observe_body.ObserveReader(reader_of(parse_type(name)), features_size).read(body))
        except RequestError as error:
            return error
    wrong = [each for each in found if isinstance(each, ClipperError)]
    if wrong:
        assert all(isinstance(each, RequestError) for each in wrong)
        return wrong[0]
    return [
        (each.query_id, each.row, each.context, each.reward, each.features)
        for each in found
        if isinstance(each, Feedback)
    ], is_list


def _shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(long_text, "PIECE_BYTES", 40)
    for module in (predict_body, observe_body):
        patch.setattr(module, "SHORT_TEXT_BYTES", 8)


def _compare(body: bytes, at_once: Any, in_pieces: Any) -> None:
    if isinstance(in_pieces, RequestError) and not isinstance(at_once, RequestError):
        bare, told = b"".join(body.split()), str(in_pieces)
        may_differ = (
            not _is_json(body)
            or b"[]" in bare
            or "without a comma" in told
            or "base64" in told
            or len(body) - len(bare) > 30
        )
        assert may_differ, (body, at_once, in_pieces)
    elif isinstance(at_once, RequestError) and not isinstance(in_pieces, RequestError):
        # The reader of pieces does not look at values of unknown keys, or of known keys that come again.
        assert _has_other_keys(body), (body, at_once, in_pieces)
    elif not isinstance(at_once, RequestError):
        assert at_once == in_pieces, body


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _has_other_keys(body: bytes) -> bool:
    text = bytearray(body)
    keys = finish(find_fields(text, 0, len(text)))
    marks = finish(json_parts._find_marks(text, 0, len(text), b"{}", 2 * json_parts.MAX_KEYS + 1)) or []
    # One that comes again, or is longer than any that is known, is not among them.
    return bool({*keys} - KNOWN) or b'"observations"' in body or (len(marks) - 1) // 2 > len(keys)


TRIES = {
    "http": try_http,
    "authorization": try_authorization,
    "predict body": try_predict_body,
    "observe body": try_observe_body,
    "infer": try_infer,
    "call": try_call,
    "http2": try_http2,
}
