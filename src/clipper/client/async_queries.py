"""The asynchronous client's methods for queries, as ``queries.py`` has those of the blocking one."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import UNSET, UnsetType

from clipper.client.async_connections import MAX_CONNECTIONS, AsyncConnections
from clipper.client.http1 import Address
from clipper.client.query_calls import How, Observed, Prediction, QueryCalls, Steps
from clipper.errors import ClipperError
from clipper.tls.trust import ClientTls

T = TypeVar("T")


class AsyncQueries:
    """Predictions and feedback.

    Args:
        query_url: of the query port, e.g. ``http://host:1337``.
        tls: the certificates to trust over TLS.
        api_key: the key for the query port, if it requires one.
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

    async def close(self) -> None:
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
        self,
        application: str,
        input: Any,  # noqa: A002
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """As ``Clipper.predict``."""
        how = How(version, context, features, timeout_s)
        return await self._run(self._calls.predict(application, input, how))

    async def predict_batch(
        self,
        application: str,
        inputs: Sequence[Any],
        *,
        version: str | None = None,
        context: str | None = None,
        features: Any = None,
        timeout_s: float | None = None,
    ) -> list[Prediction | ClipperError]:
        """As ``Clipper.predict_batch``."""
        how = How(version, context, features, timeout_s)
        return await self._run(self._calls.predict_batch(application, inputs, how))

    async def observe(
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
        """As ``Clipper.observe``."""
        given = {"label": label, "reward": reward, "query_id": query_id, "input": input, "context": context, "id": id}
        return await self._run(self._calls.observe(application, given | {"features": features}))

    async def observe_batch(
        self, application: str, observations: Sequence[Mapping[str, Any]]
    ) -> list[Observed | ClipperError]:
        """As ``Clipper.observe_batch``."""
        return await self._run(self._calls.observe_batch(application, observations))

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._connections.ask(request))
        except StopIteration as end:
            found: T = end.value
            return found
