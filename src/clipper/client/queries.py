"""The methods of the blocking and the asynchronous client for queries: predictions, and feedback on them."""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from msgspec import UNSET, UnsetType

from clipper.base.http1 import Address
from clipper.base.tls.trust import ClientTls
from clipper.client.async_connections import MAX_CONNECTIONS, AsyncConnections
from clipper.client.connections import Connections
from clipper.client.query_calls import How, Observed, Prediction, QueryCalls, Steps
from clipper.errors import ClipperError

P = ParamSpec("P")
T = TypeVar("T")


class Queries:
    """Predictions and feedback. Threads may share a client.

    Args:
        query_url: the URL of the query port, e.g. ``http://host:1337``.
        tls: the certificates to trust over TLS.
        api_key: the key for the query port, if it requires one.
    """

    def __init__(self, query_url: str, tls: ClientTls, api_key: str | None = None) -> None:
        address = Address.parse(query_url)
        self._connections = Connections(address, tls)
        self._calls = QueryCalls(address, api_key, time.monotonic)

    @property
    def query_url(self) -> str:
        return self._connections.address.url

    def predict(
        self,
        application: str,
        input: Any,  # noqa: A002
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Ask for one prediction.

        Args:
            input: a list, number, text, bytes or numpy array; of a record a dict, or a row of a data frame. Arrays and
                bytes are sent as they are in memory, which is the fastest.
            version: ask this version of a linked model, whichever is current, and skip the policy.
            context: the user, session or other group whose state the policy uses.
            features: numbers for the policy, as a list or numpy array, if the application takes some.
            timeout_s: shorten the SLO for this query; None means the SLO.

        Raises:
            DeadlineExceeded: nothing answered in time, and there is no default; or the server itself said nothing for
                10 s more.
        """
        how = How(version, context, features, timeout_s)
        return self._run(self._calls.predict(application, input, how))

    def predict_batch(
        self,
        application: str,
        inputs: Any,
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
        timeout_s: float | None = None,
    ) -> list[Prediction | ClipperError]:
        """Ask for a prediction for each input; answers come in the same order.

        An input with neither an output nor a default has its error in its place, so that the others are not lost.

        Args:
            inputs: a list, or a numpy array whose first dimension counts the inputs; of records a list of dicts, or a
                table: a data frame of pandas or polars, a table of pyarrow, or a dict of lists or arrays by field.
            features: a list with the features of each input, or a numpy array of two dimensions.
            version: as in ``predict``.
            context: as in ``predict``, of all inputs.
            timeout_s: as in ``predict``, for the whole batch.
        """
        how = How(version, context, features, timeout_s)
        return self._run(self._calls.predict_batch(application, inputs, how))

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
        step: str | None = None,
    ) -> Observed:
        """Send feedback, from which the application's policy learns. Once this returns, the feedback is durable.

        Args:
            label: the right output; any JSON.
            reward: instead of a label: how good the answer to ``query_id`` was, from 0 to 1.
            query_id: the id of the query that the feedback is about.
            input: instead of a query: the input that the label is right for.
            context: that of the input; a query has its own.
            features: those of the input; a query has its own.
            id: a name for the feedback, so that it counts once however often it is sent. Without one, feedback on a
                query counts once, and feedback on an input counts each time.
            step: the step of a pipeline that the feedback on ``query_id`` is about, instead of the whole answer.

        Raises:
            Unavailable: the server or the connection failed. Feedback on an input without an ``id`` may have been
                learned nevertheless; all other feedback may be sent again.
        """
        given = {"label": label, "reward": reward, "query_id": query_id, "input": input, "context": context, "id": id}
        return self._run(self._calls.observe(application, given | {"features": features, "step": step}))

    def observe_batch(
        self, application: str, observations: Sequence[Mapping[str, Any]]
    ) -> list[Observed | ClipperError]:
        """Send several pieces of feedback, each a mapping of the arguments of ``observe``.

        A piece that could not be learned has its error in its place. The whole batch may be sent again if each piece of
        feedback on an input has an ``id``.
        """
        return self._run(self._calls.observe_batch(application, observations))

    def score_block(self, application: str, version: str, frame: bytes) -> bytes:
        """Have a block of rows evaluated while no query waits. ``clipper score`` does this for whole files.

        Args:
            version: of the application's model.
            frame: the rows, as a batch of the container protocol.

        Returns:
            The answers, as frames of the container protocol.
        """
        return self._run(self._calls.score(application, version, frame))

    def input_type(self, application: str) -> str:
        """Return the type of an application's inputs, such as ``float64[4]`` or ``age: float64, job: string?``; empty
        if the server does not tell."""
        return self._run(self._calls.input_type(application))

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(self._connections.ask(request))
        except StopIteration as end:
            found: T = end.value
            return found


def _awaited(
    method: Callable[Concatenate[Queries, P], T],
) -> Callable[Concatenate["AsyncQueries", P], Coroutine[Any, Any, T]]:
    """Make the method of the asynchronous client: it returns what ``_run`` returns, which is a coroutine there."""
    awaited: Callable[Concatenate[AsyncQueries, P], Coroutine[Any, Any, T]] = cast(Any, method)
    return awaited


class AsyncQueries:
    """Predictions and feedback, by the methods of ``Queries``, each of which is awaited.

    Args:
        max_connections: calls in flight at once; others wait for their turn, within their time.
    """

    def __init__(
        self, query_url: str, tls: ClientTls, api_key: str | None = None, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        address = Address.parse(query_url)
        self._connections = AsyncConnections(address, tls, max_connections)
        self._calls = QueryCalls(address, api_key, time.monotonic)

    @property
    def query_url(self) -> str:
        return self._connections.address.url

    predict = _awaited(Queries.predict)
    predict_batch = _awaited(Queries.predict_batch)
    observe = _awaited(Queries.observe)
    observe_batch = _awaited(Queries.observe_batch)
    input_type = _awaited(Queries.input_type)

    async def close(self) -> None:
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._connections.ask(request))
        except StopIteration as end:
            found: T = end.value
            return found
