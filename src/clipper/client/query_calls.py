"""Predictions and feedback as requests and answers. No I/O: the blocking and the asynchronous client do it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Struct

from clipper.api.schemas import Failure
from clipper.base.http1 import Address, Answer, Request
from clipper.client.calls import part, to_list
from clipper.client.failures import answered_error, to_error
from clipper.client.http_api import checked_token
from clipper.client.tables import array_of, columns_of, record_of
from clipper.client.tensors import (
    TypeOfInputs,
    WithData,
    column,
    is_array,
    tensor_of_features,
    tensor_of_inputs,
    tensor_of_labels,
)
from clipper.errors import (
    ClipperError,
    InvalidArgument,
    MalformedRequest,
    NotFound,
    RequestError,
    TooManyRequests,
    Unavailable,
    WrongInput,
)
from clipper.settings.application import MAX_SLO_MS
from clipper.values.decoding import NOT_JSON

# The server answers a query by its deadline. This allows for the rest: a large body or answer, a busy machine.
ARRIVAL_S = 10.0
# An application's metadata is asked for again after this time: an operator may change the SLO at any time.
KNOWN_S = 30.0
# Metadata is kept for at most this many applications. A program that asks more drops all metadata, and asks again.
MAX_KNOWN = 1000
# Feedback is answered once it is durable, and the server may first have to ask models.
_OBSERVE_TIMEOUT_S = 60.0
_METADATA_TIMEOUT_S = 30.0
# A block of rows waits for a minute at most until queries leave time for it.
_SCORE_TIMEOUT_S = 90.0
# The fields of feedback that go into tensors. Feedback with another field, such as a reward, goes as JSON, whose error
# messages fit.
_AS_TENSORS = frozenset({"input", "label", "features", "id", "context"})
# The fields among these with a text for each piece of feedback.
_TEXTS = ("id", "context")

T = TypeVar("T")
Steps = Generator[Request, Answer, T]


class Prediction(Struct, frozen=True):
    """The answer to a query.

    Attributes:
        output: any JSON, whatever the form of the input: a number, a text, a list. ``numpy.asarray`` makes an array of
            a list of numbers.
        default: whether ``output`` is the application's default, because there was no better answer.
        confidence: from 0 to 1.
        default_reason: an error code, e.g. ``timeout``; None without a default.
        default_explanation: the reason in words.
        low_confidence_output: with reason ``low_confidence``, the answer that the default replaced.
        model, version: the version that gave the output; None for a default, for an output that was combined from those
            of several models, and if the application does not show its models.
        models: the models of a combined output, each as ``MODEL:VERSION``, in the order of asking.
    """

    query_id: int
    output: Any
    default: bool
    confidence: float
    default_reason: str | None = None
    default_explanation: str | None = None
    low_confidence_output: Any = None
    model: str | None = None
    version: str | None = None
    models: tuple[str, ...] = ()


class Observed(Struct, frozen=True):
    """The outcome of feedback. ``duplicate``: the same feedback had come before, and was not counted again."""

    observed: bool
    duplicate: bool


class _Metadata(Struct, frozen=True):
    """An application's metadata in the Open Inference Protocol. The first length of a shape counts inputs."""

    class Tensor(Struct, frozen=True):
        name: str
        datatype: str
        shape: tuple[int, ...]

    class Parameters(Struct, frozen=True):
        slo_ms: float
        input_type: str = ""

    inputs: list[Tensor]
    parameters: Parameters | None = None


class _Health(Struct, frozen=True):
    status: str


class Known(NamedTuple):
    """The facts about an application.

    Attributes:
        inputs: None if they are records, or if the server does not tell.
        slo_s: the longest possible if the server does not tell.
        input_type: as text; empty if the server does not tell.
    """

    inputs: TypeOfInputs | None
    slo_s: float
    read_at_s: float
    input_type: str = ""

    @property
    def are_records(self) -> bool:
        return ":" in self.input_type


class How(NamedTuple):
    """The arguments of a prediction other than its input; see ``Clipper.predict``."""

    version: str | None
    context: str | None
    features: Any
    timeout_s: float | None


class QueryCalls:
    """The calls of a client, from any thread. A call is a generator of requests, which gets the answer to each.
    ``clock``: returns a time in seconds that never goes back.
    """

    def __init__(self, address: Address, api_key: str | None, clock: Callable[[], float]) -> None:
        self._address = address
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._headers = "" if api_key is None else f"authorization: Bearer {checked_token(api_key)}\r\n"

    def check(self) -> Steps[None]:
        """Check that a worker answers, without a key. Raises Unavailable if nothing does, or not Clipper."""
        answer = yield Request("GET", "/health/live", timeout_s=ARRIVAL_S)
        self._read(answer, _Health)

    def predict(self, application: str, value: Any, how: How) -> Steps[Prediction]:
        return (yield from self._ask(application, lambda known: self._predict_one(application, value, how, known)))

    def predict_batch(self, application: str, inputs: Any, how: How) -> Steps[list[Prediction | ClipperError]]:
        return (yield from self._ask(application, lambda known: self._predict_all(application, inputs, how, known)))

    def input_type(self, application: str) -> Steps[str]:
        return (yield from self._look_up(application)).input_type

    def score(self, application: str, version: str, frame: bytes) -> Steps[bytes]:
        path = f"/v2/models/{part(application)}/versions/{part(version)}/score"
        headers = f"{self._headers}content-type: application/octet-stream\r\n"
        answer = yield Request("POST", path, (frame,), headers, _SCORE_TIMEOUT_S)
        return self._decoded(answer, bytes)

    def observe(self, application: str, observation: Mapping[str, Any]) -> Steps[Observed]:
        body = _given(observation)
        if "input" in body:
            body["input"] = record_of(body["input"])
        # A query has one outcome, so feedback on it counts once.
        has_id = "id" in body or "query_id" in body
        if not _has_bytes(body):
            answer = yield self._observe(application, body, has_id)
            return self._read(answer, Observed)

        def ask(known: Known) -> Steps[Observed]:
            request = self._observed_tensors(application, [body], has_id, known)
            return self._read((yield request or self._observe(application, body, has_id)), Observed)

        return (yield from self._ask(application, ask))

    def observe_batch(
        self, application: str, observations: Sequence[Mapping[str, Any]]
    ) -> Steps[list[Observed | ClipperError]]:
        bodies = [_given(each) for each in observations]
        have_ids = all("id" in body or "query_id" in body for body in bodies)
        in_json = {"observations": observations}
        if len(bodies) > 1 and all(map(_has_bytes, bodies)):

            def ask(known: Known) -> Steps[list[Observed | ClipperError]]:
                request = self._observed_tensors(application, bodies, have_ids, known)
                answer = yield request or self._observe(application, in_json, have_ids)
                return self._read_observed(answer, len(bodies))

            # The server refuses tensors as a whole, but in a JSON list only the invalid pieces.
            with suppress(WrongInput, MalformedRequest):
                return (yield from self._ask(application, ask))
        answer = yield self._observe(application, in_json, have_ids)
        return self._read_observed(answer, len(bodies))

    def _ask(self, application: str, ask: Callable[[Known], Steps[T]]) -> Steps[T]:
        """Ask once more if the server refuses the input and its type has changed since we asked for it."""
        known = self._known.get(application)
        if known is not None and self._clock() - known.read_at_s <= KNOWN_S:
            try:
                return (yield from ask(known))
            except (WrongInput, NotFound):
                newer = yield from self._look_up(application)
                if newer.input_type == known.input_type and newer.inputs == known.inputs:
                    raise
        else:
            newer = yield from self._look_up(application)
        return (yield from ask(newer))

    def _look_up(self, application: str) -> Steps[Known]:
        path = f"/v2/models/{part(application)}"
        answer = yield Request("GET", path, headers=self._headers, timeout_s=_METADATA_TIMEOUT_S)
        try:
            told = self._read(answer, _Metadata)
        except RequestError:
            # The server will refuse the query itself for the same reason, with a message about queries.
            told = None
        if told is None or told.parameters is None:
            self._known.pop(application, None)
            return Known(None, MAX_SLO_MS / 1000, self._clock())
        input_type = told.parameters.input_type
        first = next((each for each in told.inputs if each.name == "input" and ":" not in input_type), None)
        inputs = None if first is None else TypeOfInputs(first.datatype, first.shape[1:])
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        slo_s = min(max(told.parameters.slo_ms, 0.0), MAX_SLO_MS) / 1000
        known = self._known[application] = Known(inputs, slo_s, self._clock(), input_type)
        return known

    def _predict_one(self, application: str, value: Any, how: How, known: Known) -> Steps[Prediction]:
        value = record_of(value) if known.are_records else value
        request = self._tensors(application, [value], None, how, known)
        answer = yield request or self._json(application, {"input": value}, how, known)
        return self._read(answer, Prediction)

    def _predict_all(
        self, application: str, inputs: Any, how: How, known: Known
    ) -> Steps[list[Prediction | ClipperError]]:
        table = columns_of(inputs) if known.are_records else None
        if table is not None:
            answer = yield self._json(application, {"input_columns": table.by_name}, how, known)
            return self._read_all(answer, "batch_predictions", Prediction, table.rows)
        inputs = array_of(inputs)
        request = self._tensors(application, inputs, len(inputs), how, known)
        answer = yield request or self._json(application, {"input_batch": inputs}, how, known)
        if request is None or len(inputs) > 1:
            return self._read_all(answer, "batch_predictions", Prediction, len(inputs))
        try:
            return [self._read(answer, Prediction)]
        except (RequestError, TooManyRequests):
            raise
        except ClipperError as error:  # a single row as a tensor is answered like a single input
            return [error]

    def _tensors(
        self, application: str, inputs: Sequence[Any], rows: int | None, how: How, known: Known
    ) -> Request | None:
        """Return the request with binary tensors; None if the inputs are not arrays, or are of another type."""
        own = None if known.inputs is None else tensor_of_inputs(inputs, known.inputs)
        if own is None:
            return None
        tensors = [own]
        if how.features is not None:
            features = tensor_of_features(how.features, rows)
            if features is None:
                return None
            tensors.append(features)
        parameters: dict[str, Any] = {}
        if how.context is not None:
            parameters["context"] = how.context
        if how.timeout_s is not None:
            parameters["timeout"] = max(1, round(_checked_timeout_s(how.timeout_s) * 1e6))
        version = "" if how.version is None else f"/versions/{part(str(how.version))}"
        path = f"/v2/models/{part(application)}{version}/predict"
        return self._with_tensors(path, tensors, parameters, _wait_s(how, known))

    def _observed_tensors(
        self, application: str, bodies: Sequence[Mapping[str, Any]], have_ids: bool, known: Known
    ) -> Request | None:
        """Return feedback on arrays as tensors; None if pieces differ in form, or have values that no tensor holds."""
        names = bodies[0].keys()
        if known.inputs is None or not names <= _AS_TENSORS or any(body.keys() != names for body in bodies):
            return None
        columns = {name: [body.get(name) for body in bodies] for name in ("label", *names)}
        if not all(isinstance(text, str) for name in _TEXTS for text in columns.get(name, ())):
            return None
        tensors = [tensor_of_inputs(columns["input"], known.inputs), tensor_of_labels(columns["label"])]
        if "features" in columns:
            tensors.append(tensor_of_features(columns["features"], len(bodies)))
        tensors += [column(name, "BYTES", columns[name]) for name in _TEXTS if name in columns]
        found = [each for each in tensors if each is not None]
        if len(found) < len(tensors):
            return None
        path = f"/v2/models/{part(application)}/observe"
        return self._with_tensors(path, found, {}, _OBSERVE_TIMEOUT_S, have_ids)

    def _with_tensors(
        self,
        path: str,
        tensors: Sequence[WithData],
        parameters: Mapping[str, Any],
        timeout_s: float,
        may_repeat: bool = True,
    ) -> Request:
        described: dict[str, Any] = {"inputs": [each.tensor for each in tensors]}
        if parameters:
            described["parameters"] = parameters
        text = _to_json(described)
        headers = f"{self._headers}inference-header-content-length: {len(text)}\r\n"
        return Request("POST", path, (text, *(each.data for each in tensors)), headers, timeout_s, may_repeat)

    def _json(self, application: str, body: dict[str, Any], how: How, known: Known) -> Request:
        options = {"version": how.version, "context": how.context, "features": how.features}
        body |= {name: value for name, value in options.items() if value is not None}
        if how.timeout_s is not None:
            body["timeout_ms"] = _checked_timeout_s(how.timeout_s) * 1000
        return self._post(f"/{part(application)}/predict", body, _wait_s(how, known))

    def _observe(self, application: str, body: dict[str, Any], has_id: bool) -> Request:
        return self._post(f"/{part(application)}/observe", body, _OBSERVE_TIMEOUT_S, has_id)

    def _post(self, path: str, body: Mapping[str, Any], timeout_s: float, may_repeat: bool = True) -> Request:
        headers = f"{self._headers}content-type: application/json\r\n"
        return Request("POST", path, (_to_json(body),), headers, timeout_s, may_repeat)

    def _read(self, answer: Answer, kind: type[T]) -> T:
        """Raises the ClipperError that the server answered; Unavailable if the answer is none of Clipper's."""
        return self._decoded(answer, lambda body: msgspec.json.decode(body, type=kind))

    def _read_observed(self, answer: Answer, count: int) -> list[Observed | ClipperError]:
        return self._read_all(answer, "observations", Observed, count)

    def _read_all(self, answer: Answer, name: str, kind: type[T], count: int) -> list[T | ClipperError]:
        """Read an answer that has a list of ``count`` parts or errors. Raises the same errors as ``_read``."""

        def decode(body: bytes) -> list[T | ClipperError]:
            parts = msgspec.json.decode(body, type=dict[str, list[dict[str, Any]]]).get(name, [])
            if len(parts) != count:
                raise msgspec.ValidationError(f"{name} has {len(parts)} items: expected {count}")
            return [
                to_error(msgspec.convert(each, Failure)) if "error" in each else msgspec.convert(each, kind)
                for each in parts
            ]

        return self._decoded(answer, decode)

    def _decoded(self, answer: Answer, decode: Callable[[bytes], T]) -> T:
        url = self._address.url
        if not 200 <= answer.status < 300:
            raise answered_error(url, "POST", answer.status, answer.body, answer.retry_after)
        try:
            return decode(answer.body)
        except NOT_JSON as error:
            shown = answer.body[:200].decode(errors="replace")
            raise Unavailable(f"{url} is not Clipper: it answered {shown!r} ({error})") from error


def _given(observation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in observation.items() if value is not None or name in ("label", "input")}


def _has_bytes(observation: Mapping[str, Any]) -> bool:
    given = observation.get("input")
    return is_array(given) or isinstance(given, (bytes, bytearray))


def _wait_s(how: How, known: Known) -> float:
    return (known.slo_s if how.timeout_s is None else min(known.slo_s, how.timeout_s)) + ARRIVAL_S


def _checked_timeout_s(timeout_s: float) -> float:
    if not 0 < timeout_s < inf:
        raise InvalidArgument(f"timeout_s is {timeout_s}: expected seconds above 0, or None for the SLO")
    return timeout_s


def _to_json(body: Mapping[str, Any]) -> bytes:
    """Encode a body. Raises InvalidArgument if the body holds something that JSON cannot."""
    # The encoder accepts UNSET only in fields of a struct.
    given = {name: value for name, value in body.items() if value is not UNSET}
    try:
        return msgspec.json.encode(given, enc_hook=to_list)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidArgument(
            f"the call cannot be sent: {error}; expected numbers, texts, bytes, lists or numpy arrays of them"
        ) from error
