"""The clients that may call the applications of a worker, and their limits.

A key is looked up when a request's head is parsed. A known head, the same byte for byte, skips this: the port remembers
its endpoint, and forgets that whenever keys or applications change.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from clipper.base.tls.expiry import day
from clipper.control.difference import Difference
from clipper.control.snapshot import ApplicationSnapshot, KeySnapshot, Snapshot
from clipper.control.statistics import LimitStatistics
from clipper.errors import Forbidden, MalformedRequest, RequestError, Unauthorized
from clipper.worker.frontend.client_limits import Limit, Limits, share_in_flight, share_per_second
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.selection.application import Application

_HOW = (
    "as the header 'Authorization: Bearer KEY'; clipper key create makes one, and commands take it from CLIPPER_API_KEY"
)


class Limited:
    """An endpoint for clients with a key, or with limits: it refuses a request over them before reading its body."""

    def __init__(self, endpoint: Endpoint, key: "_Key | None", limits: Limits | None) -> None:
        """Guard an endpoint. ``key``: the clients' key; None if they need none."""
        self.methods = endpoint.methods
        self.max_body_bytes = endpoint.max_body_bytes
        self.slo_s = endpoint.slo_s
        self.error_json = endpoint.error_json
        self._endpoint = endpoint
        self._key = key
        self._limits = limits

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = self.error_json
        key, limits = self._key, self._limits
        if key is not None:
            if exchange.note is not None:
                exchange.note.key = key.name
            # A known head is not looked up again, though its key may have expired.
            key.check_time()
        if limits is not None:
            limits.admit_one(arrived_s)
            exchange.limits = limits
            exchange.admitted = 1
        self._endpoint.handle(exchange, body, arrived_s, is_late)


class Guarded:
    """A path of an application that needs a key or has limits."""

    def __init__(self, application: str, needs_key: bool, endpoint: Endpoint, clients: "Clients") -> None:
        self._application = application
        self._needs_key = needs_key
        self.slo_s = endpoint.slo_s
        self._endpoint = endpoint
        self._clients = clients

    def enter(self, authorizations: Sequence[bytes]) -> Endpoint:
        """Return the endpoint for a client with these Authorization headers.

        Raises MalformedRequest if there are several such headers, Unauthorized if the key is missing, unknown or
        expired, and Forbidden if the key is for other applications.
        """
        limits, key = [], None
        if self._needs_key:
            key = self._clients.find(self._application, authorizations)
            if key.limit is not None:
                limits.append(key.limit)
        own = self._clients.limit_of(self._application)
        if own is not None:
            limits.append(own)
        if not limits and key is None:
            return self._endpoint
        return Limited(self._endpoint, key, Limits(*limits) if limits else None)


@dataclass(frozen=True, slots=True)
class _Key:
    """A valid key. ``limit`` is None if it has no limits."""

    name: str
    applications: frozenset[str]
    limit: Limit | None
    expires_at: float | None
    time_s: Callable[[], float]

    def check_time(self) -> None:
        """Raise Unauthorized if the key has expired."""
        if self.expires_at is not None and self.time_s() >= self.expires_at:
            raise Unauthorized(
                f"key {self.name!r} expired on {day(self.expires_at)}: ask for a new key, which clipper key create "
                "makes"
            )


class Clients:
    """A worker's keys by digest, and all limits in use. ``generation`` is that of the newest snapshot it followed."""

    def __init__(
        self,
        index: int,
        now_s: Callable[[], float],
        time_s: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            index: the worker's index among all workers.
            time_s: returns the time by which keys expire, in seconds since 1970.
        """
        self._index = index
        self._now_s = now_s
        self._time_s = time_s
        self.generation = -1
        self._workers = 1
        self._all_need_key = False
        # The keys by digest, and the digests by name.
        self._keys: dict[str, _Key] = {}
        self._digests: dict[str, str] = {}
        # The applications' ids by name.
        self._ids: dict[str, str] = {}
        # The limits by the digest of a key, or the id of an application: a new application under an old name starts
        # with unused limits.
        self._limits: dict[str, Limit] = {}
        # The keys and applications with limits, under the same names.
        self._limited: dict[str, KeySnapshot | ApplicationSnapshot] = {}

    def follow(self, told: Snapshot | Difference) -> None:
        """Use these keys and limits, unless they are older than the last. A difference costs what it contains."""
        if told.generation < self.generation:
            return
        self.generation = told.generation
        self._all_need_key = told.needs_key
        if isinstance(told, Difference):
            gone_keys, gone_applications = set(told.gone_keys), set(told.gone_applications)
        else:
            gone_keys = self._digests.keys() - {key.name for key in told.keys}
            gone_applications = self._ids.keys() - {one.name for one in told.applications}
        for name in gone_keys:
            self._forget_key(name)
        for name in gone_applications:
            self._forget_limit(self._ids.pop(name, None))
        if told.workers != self._workers:  # each worker's share of every limit changes
            self._workers = told.workers
            for id_, one in list(self._limited.items()):
                self._limit(id_, one)
        for key in told.keys:
            if self._digests.get(key.name) != key.digest:
                self._forget_key(key.name)
            self._digests[key.name] = key.digest
            limit = self._limit(key.digest, key)
            self._keys[key.digest] = _Key(key.name, frozenset(key.applications), limit, key.expires_at, self._time_s)
        for application in told.applications:
            id_ = application.id or application.name
            if self._ids.get(application.name) != id_:
                self._forget_limit(self._ids.get(application.name))
            self._ids[application.name] = id_
            self._limit(id_, application)

    def guarded(self, application: Application, endpoint: Endpoint) -> Endpoint | Guarded:
        """Return the endpoint, behind a guard if the application needs a key or has limits."""
        needs_key = self.needs_key(application)
        if not needs_key and self.limit_of(application.name) is None:
            return endpoint
        return Guarded(application.name, needs_key, endpoint, self)

    def entered(self, application: Application, endpoint: Endpoint, authorizations: Sequence[bytes]) -> Endpoint:
        """Return the endpoint for a client with these headers. Raises the errors of ``Guarded.enter``."""
        guarded = self.guarded(application, endpoint)
        return guarded.enter(authorizations) if isinstance(guarded, Guarded) else guarded

    def needs_key(self, application: Application) -> bool:
        return self._all_need_key or application.snapshot.needs_key

    def check(self, application: Application, authorizations: Sequence[bytes]) -> None:
        """Check that a client with these headers may know about the application, whatever its limits.

        Raises MalformedRequest, Unauthorized and Forbidden like ``Guarded.enter``.
        """
        if self.needs_key(application):
            self.find(application.name, authorizations)

    def visible(self, applications: Iterable[Application], authorizations: Sequence[bytes]) -> list[Application]:
        """Return the applications that a client with these headers may know about."""
        found = []
        for application in applications:
            with suppress(RequestError):
                self.check(application, authorizations)
                found.append(application)
        return found

    def find(self, application: str, authorizations: Sequence[bytes]) -> _Key:
        """Return the key in these headers if the application takes it. Raises as ``Guarded.enter``."""
        if not authorizations:
            raise Unauthorized(f"application {application!r} needs a key, {_HOW}")
        if len(authorizations) > 1:
            raise MalformedRequest(f"there are {len(authorizations)} headers 'Authorization': expected one")
        scheme, _, shown = authorizations[0].partition(b" ")
        if scheme.lower() != b"bearer" or not shown.strip():
            raise Unauthorized(f"application {application!r} needs a key in the scheme Bearer, {_HOW}")
        # Digests are compared, not keys, so that timing reveals nothing about the keys.
        key = self._keys.get(hashlib.sha256(shown.strip()).hexdigest())
        if key is None:
            raise Unauthorized(
                "this server does not know the key: it may have been revoked; `clipper key list` shows the valid keys"
            )
        key.check_time()
        if key.applications and application not in key.applications:
            raise Forbidden(f"key {key.name!r} is not for application {application!r}")
        return key

    def limit_of(self, application: str) -> Limit | None:
        return self._limits.get(self._ids.get(application, ""))

    def statistics(self) -> tuple[LimitStatistics, ...]:
        # Only keys and applications with limits, which are few: this runs each second.
        return tuple(
            LimitStatistics(
                "key" if isinstance(one, KeySnapshot) else "application",
                one.name,
                self._limits[id_].in_flight,
                self._limits[id_].refused,
            )
            for id_, one in self._limited.items()
        )

    def _limit(self, id_: str, one: KeySnapshot | ApplicationSnapshot) -> Limit | None:
        """Return the present limit of a key or application; None if it has none. An existing limit keeps its counts."""
        in_flight = share_in_flight(one.max_in_flight, self._workers, self._index)
        per_second = share_per_second(one.max_per_second, self._workers)
        if in_flight is None and per_second is None:
            self._forget_limit(id_)
            return None
        self._limited[id_] = one
        known = self._limits.get(id_)
        if known is None:
            what = "key" if isinstance(one, KeySnapshot) else "application"
            known = self._limits[id_] = Limit(f"{what} {one.name!r}", in_flight, per_second, self._now_s())
        else:
            known.follow(in_flight, per_second, self._now_s())
        return known

    def _forget_key(self, name: str) -> None:
        digest = self._digests.pop(name, None)
        if digest is not None:
            self._keys.pop(digest, None)
        self._forget_limit(digest)

    def _forget_limit(self, id_: str | None) -> None:
        if id_ is not None:
            self._limits.pop(id_, None)
            self._limited.pop(id_, None)
