"""The client's methods for queries: predictions, and feedback on them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from clipper.client.calls import Calls, part, to_list
from clipper.client.http_api import to_error
from clipper.errors import ClipperError
from clipper.management.schemas import Failure

# Bounds each step of a call. An SLO may be longer, up to 600 s: such a query ends with DeadlineExceeded.
_PREDICT_TIMEOUT_S = 60.0

T = TypeVar("T")


class Prediction(Struct, frozen=True):
    """One answer.

    Attributes:
        output: any JSON.
        default: whether ``output`` is the application's default, because there was no better answer.
        confidence: from 0 to 1.
        default_reason: an error code, e.g. ``timeout``; None without a default.
        default_explanation: the reason in words.
        low_confidence_output: with reason ``low_confidence``, the answer that the default replaced.
    """

    query_id: int
    output: Any
    default: bool
    confidence: float
    default_reason: str | None = None
    default_explanation: str | None = None
    low_confidence_output: Any = None


class _Predictions(Struct, frozen=True):
    batch_predictions: list[dict[str, Any]]


class Observed(Struct, frozen=True):
    """``duplicate`` says that the same feedback had come before, and was not counted again."""

    observed: bool
    duplicate: bool


class _Observations(Struct, frozen=True):
    observations: list[dict[str, Any]]


class Queries(Calls):
    """Predictions and feedback."""

    def predict(
        self,
        application: str,
        input: Any,  # noqa: A002
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
    ) -> Prediction:
        """Ask for one prediction. ``input`` may be a list, number, text, bytes or numpy array.

        ``features``: numbers for the policy, as a list or numpy array, if the application takes some.
        """
        body = _query_body({"input": input}, version, context, features)
        answer = self._queries.call("POST", f"/{part(application)}/predict", body, _PREDICT_TIMEOUT_S)
        return msgspec.json.decode(answer, type=Prediction)

    def predict_batch(
        self,
        application: str,
        inputs: Sequence[Any],
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
    ) -> list[Prediction | ClipperError]:
        """Ask for a prediction for each input; answers come in the same order.

        An input with neither an output nor a default has its error in its place, so that the others are not lost.
        ``features``: a list with those of each input, or a numpy array of two dimensions.
        """
        body = _query_body({"input_batch": inputs}, version, context, features)
        answer = self._queries.call("POST", f"/{part(application)}/predict", body, _PREDICT_TIMEOUT_S)
        parts = msgspec.json.decode(answer, type=_Predictions).batch_predictions
        return [_or_error(each, Prediction) for each in parts]

    def observe(
        self,
        application: str,
        *,
        label: Any | UnsetType = UNSET,
        reward: float | None = None,
        query_id: int | None = None,
        input: Any | UnsetType = UNSET,  # noqa: A002
        context: str | None = None,
        features: Any = None,
        id: str | None = None,  # noqa: A002
    ) -> Observed:
        """Send feedback, from which the application's policy learns. Once this returns, the feedback is durable.

        Args:
            label: the right output; any JSON.
            reward: instead of a label: how good the answer to ``query_id`` was, from 0 to 1.
            query_id: of the prediction that the feedback is about.
            input: instead of a query: the input that the label is right for.
            context, features: of that input; a query has its own.
            id: a name for the feedback, so that it counts once however often it is sent. Without one, feedback on a
                query counts once, and feedback on an input counts each time.
        """
        given = {"label": label, "reward": reward, "query_id": query_id, "input": input, "context": context, "id": id}
        given["features"] = features
        body = {name: value for name, value in given.items() if value is not None or name in ("label", "input")}
        answer = self._queries.call("POST", _observe_path(application), _to_json(body), _PREDICT_TIMEOUT_S)
        return msgspec.json.decode(answer, type=Observed)

    def observe_batch(
        self, application: str, observations: Sequence[Mapping[str, Any]]
    ) -> list[Observed | ClipperError]:
        """Send several pieces of feedback, each a mapping of the arguments of ``observe``.

        A piece that could not be learned has its error in its place. The whole batch may be sent again if each piece on
        an input has an ``id``.
        """
        body = _to_json({"observations": observations})
        answer = self._queries.call("POST", _observe_path(application), body, _PREDICT_TIMEOUT_S)
        parts = msgspec.json.decode(answer, type=_Observations).observations
        return [_or_error(each, Observed) for each in parts]


def _observe_path(application: str) -> str:
    return f"/{part(application)}/observe"


def _or_error(found: dict[str, Any], kind: type[T]) -> T | ClipperError:
    """One result of a batch, or the error in its place."""
    return to_error(msgspec.convert(found, Failure)) if "error" in found else msgspec.convert(found, kind)


def _query_body(body: dict[str, Any], version: str | None, context: str | None, features: Any) -> bytes:
    options = {"version": version, "context": context, "features": features}
    body |= {name: value for name, value in options.items() if value is not None}
    return _to_json(body)


def _to_json(body: dict[str, Any]) -> bytes:
    # The encoder accepts UNSET only in fields of a struct.
    return msgspec.json.encode({name: value for name, value in body.items() if value is not UNSET}, enc_hook=to_list)
