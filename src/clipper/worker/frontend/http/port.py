"""The common state of the connections to a query port: endpoints and known heads, the budgets, and the clock."""

import asyncio
import select
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from clipper.base.turn_budget import TurnBudget
from clipper.errors import Forbidden
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget, Untaken
from clipper.worker.frontend.clients import Guarded
from clipper.worker.frontend.endpoint import Endpoint, KnownHead
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.cross_origin import Origins
from clipper.worker.frontend.http.giving_way import GivingWay
from clipper.worker.frontend.http.heads import Head, Headers, ids_of, path_of, without_varying
from clipper.worker.frontend.inference.framing import error_json
from clipper.worker.frontend.long_work import LongWork
from clipper.worker.telemetry.request_note import RequestNote, read_request_id
from clipper.worker.telemetry.watch import Watch

_ACTIONS = {b"predict", b"observe", b"update"}
# The status of a request whose client has left, as nginx logs it.
LEFT = "499"
# The path of gRPC's health service.
HEALTH_SERVICE = b"/grpc.health.v1.Health/"
NEVER_S = float("inf")
# If ``MAX_OVER_BOUND`` connections are closing, some have closed after this time.
LEAVING_S = 0.01
NO_HEADERS: Headers = []
NO_IDS: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])


def address_of(client: asyncio.BaseTransport) -> str:
    """Return the address of the other end; empty if it has none."""
    peer = client.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def has_gone(transport: asyncio.Transport) -> bool:
    """Whether the client has closed both directions, or reset the connection. A client that closed one may read."""
    return bool(_poll(transport, 0) & (select.POLLERR | select.POLLHUP))


def _has_input(transport: asyncio.Transport) -> bool:
    """Whether the kernel has unread input: a request that came while the loop was at work."""
    return _poll(transport, select.POLLIN) != 0


def _poll(transport: asyncio.Transport, events: int) -> int:
    connected = transport.get_extra_info("socket")
    if connected is None or connected.fileno() < 0:
        return 0
    poll = select.poll()
    poll.register(connected.fileno(), events)
    found = poll.poll(0)
    return found[0][1] if found else 0


class Member(Protocol):
    """A connection, from the port's view.

    Attributes:
        untaken: the answers that its client has not read.
        is_going: whether it was cut off but is not lost yet.
        gives_way_from_s: see ``giving_way``; None also while the client has not read a refusal, or all of an answer.
        arrives_from_s: since when a request has been arriving that holds memory; None if there is none.
    """

    transport: asyncio.Transport
    untaken: Untaken
    is_going: bool

    @property
    def is_busy(self) -> bool: ...

    @property
    def gives_way_from_s(self) -> float | None: ...

    @property
    def arrives_from_s(self) -> float | None: ...

    def sweep(self, sweeps: int) -> None: ...

    def give_way(self) -> None: ...

    def stop_arriving(self) -> None:
        """Refuse the request that has been arriving for longest: memory is short."""

    def cut_off(self) -> None: ...


class OtherPaths(Protocol):
    """Finds paths that no table can hold, since they are too many or depend on more of a head."""

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Find the endpoint of a path, as ``Port.find`` does."""

    def why_not_found(self, path: bytes) -> str | None:
        """Return the cause to answer if there is no endpoint; None if the path is of no known form."""


class Port:
    """The state of a query port, for its connections. ``QueryServer`` listens, which connections do not know.

    Attributes:
        members: the open connections, in the order in which they were made.
        max_connections: beyond this, idle connections give way to new ones; if none does soon, the new one is refused.
        coming: connections that were accepted but are not members yet. The loop may accept hundreds before it calls the
            first of them.
        on_leaving: called when a connection was lost.
        known_heads: the known heads by their bytes; see ``Connection``.
        plain_heads: the known heads of requests that need a note only if they have an id.
        budget: the memory that requests hold.
        work: runs work that takes too long for a turn.
        turn: the time of the loop's turns, for which requests wait while the worker has none.
        refused: the number of refused requests that no application saw, by error code; endpoints count theirs, too.
        freed_large_body: whether a large body was dropped since the last sweep, so that the next sweep frees memory.
        sweeps: the number of sweeps since the start, one a second: a clock that costs nothing to read.
        is_draining: whether each connection ends with its next answer.
        origins: the web pages that may read answers; None if no page of another origin may.
        watch: notes requests; None if there are neither logs nor traces.
    """

    def __init__(
        self,
        max_connections: int = limits.MAX_CONNECTIONS,
        give_out: Callable[[], None] = lambda: None,
        origins: Origins | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch
        self._loop = loop = asyncio.get_running_loop()
        self._endpoints: dict[bytes, Endpoint | Guarded] = {}
        # The number of endpoints with each SLO.
        self._slos: Counter[float] = Counter()
        self._others: OtherPaths | None = None
        self.members: dict[Member, None] = {}
        # The connections that were told to end, and the others in the order in which they give way.
        self._leaving: set[Member] = set()
        self._giving_way = GivingWay[Member](self.members, lambda member: member.gives_way_from_s)
        self._awaited_room: asyncio.TimerHandle | None = None
        # The time by which a connection with unread input gives way, unless its request is whole.
        self._unread_until_s = 0.0
        self._writer: object = None
        self._arriving = GivingWay[Member](self.members, self._arrives_from_s)
        self.max_connections = max_connections
        self.coming = 0
        self.on_leaving: Callable[[], None] = lambda: None
        self.known_heads: dict[bytes, KnownHead] = {}
        # If the watch may note any request, this table stays empty, so that no request bypasses the watch.
        self.plain_heads = {} if watch is not None and watch.most else self.known_heads
        self.budget = Budget()
        self.budget.make_room = self._stop_arriving
        self.refused: Counter[str] = Counter()
        self.now_s = loop.time
        self.turn = TurnBudget(loop.call_soon, self.now_s, give_out)
        self.work = LongWork(self.turn, self.budget, self.refused)
        self.freed_large_body = False
        self.sweeps = 0
        self.is_draining = False
        self.origins = origins

    # -- endpoints ---------------------------------------------------------------------------------------

    def serve(
        self,
        endpoints: Mapping[bytes, Endpoint | Guarded],
        others: OtherPaths | None = None,
        gone: Iterable[bytes] = (),
    ) -> None:
        """Serve these paths from the next request on, by these endpoints: add new paths and replace known ones.

        Args:
            others: finds paths that are not among the endpoints.
            gone: paths that are no longer served.
        """
        self.forget_heads()
        self._others = others
        for path in gone:
            self._replace(path, None)
        for path, endpoint in endpoints.items():
            self._replace(path, endpoint)
        self.turn.set_slo(min(self._slos, default=1.0))

    def _replace(self, path: bytes, endpoint: Endpoint | Guarded | None) -> None:
        before = self._endpoints.pop(path, None)
        if before is not None:
            self._slos[before.slo_s] -= 1
            if not self._slos[before.slo_s]:
                del self._slos[before.slo_s]
        if endpoint is not None:
            self._endpoints[path] = endpoint
            self._slos[endpoint.slo_s] += 1

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Return the endpoint for this path and the client that sent this head.

        Raises:
            MalformedRequest, Unauthorized, Forbidden: those of ``Guarded.enter``.
            Forbidden: a web page of a site that is not allowed sends a query or feedback.
        """
        if self.origins is not None and (preflight := self.origins.preflight(head)) is not None:
            return preflight
        endpoint = self._endpoints.get(path)
        if endpoint is None and self._others is not None:
            endpoint = self._others.find(path, head)
        if head.is_cross_site and endpoint is not None:
            self._check_page(endpoint, head.origin)
        return endpoint.enter(head.authorizations) if isinstance(endpoint, Guarded) else endpoint

    def _check_page(self, endpoint: Endpoint | Guarded, origin: bytes) -> None:
        """Refuse pages of other sites, which browsers let send text without asking first: they could teach policies."""
        asks = isinstance(endpoint, Guarded) or "POST" in endpoint.methods
        if asks and (self.origins is None or not self.origins.allows(origin)):
            raise Forbidden(
                "a web page of another site sent this request: clipper start --allowed-origin allows the pages of an "
                "origin"
            )

    def error_form(self, path: bytes) -> Callable[[str, str], bytes]:
        """Return the function that formats errors for this path."""
        is_protocols = path.partition(b"/")[2].partition(b"/")[0] == b"v2" and path not in self._endpoints
        return error_json if is_protocols else responses.error_json

    def forget_heads(self) -> None:
        """Parse each client's next head again, since permissions or endpoints have changed."""
        for known in self.known_heads.values():
            known.forget()
        self.known_heads.clear()

    def known(self, data: bytes, start: int) -> Endpoint | None:
        """Return the endpoint of a query that begins at ``start``, if its head is known."""
        end = data.find(b"\r\n\r\n", start) + 4
        head = data[start:end] if end > start else b""  # see ``Connection._take``
        known = self.known_heads.get(head) or self.known_heads.get(without_varying(head)[0])
        return None if known is None or known.endpoint.slo_s == NEVER_S else known.endpoint

    # -- notes -------------------------------------------------------------------------------------------

    def recognise(
        self, head: bytes, arrived_s: float, transport: asyncio.Transport
    ) -> tuple[KnownHead | None, RequestNote | None]:
        """Look a head up without the headers that differ in each request. Return the request's note, too."""
        known, varying, chance = self.known_heads.get(head), NO_HEADERS, 0.0
        if known is None:
            rest, varying = without_varying(head)
            known = self.known_heads.get(rest) if varying else None
            if known is None:
                return None, None
        if self.watch is not None:
            chance = self.watch.draw()
            if chance >= self.watch.most and not varying:
                return known, None
        # Known heads are those of POST.
        return known, self.note(arrived_s, varying, "POST", head[5 : head.find(b" ", 5)], transport, chance)

    def note(
        self,
        arrived_s: float,
        varying: Headers,
        method: str,
        url: bytes,
        client: asyncio.BaseTransport | str,
        chance: float | None = None,
    ) -> RequestNote | None:
        """Note a request, if it has an id or the watch wants it.

        Args:
            varying: its headers that differ in each request.
            client: its client's transport or address.
            chance: the number that the watch has drawn for it; None if it has not yet.
        """
        ids, traceparents, tracestates = ids_of(varying) if varying else NO_IDS
        request_id = read_request_id(ids[0]) if len(ids) == 1 else ""
        if self.watch is None:
            return RequestNote(arrived_s, request_id) if request_id else None

        def about() -> tuple[str, str, str]:
            address = client if isinstance(client, str) else address_of(client)
            return method, path_of(url).decode("latin-1"), address

        asks = method == "POST" and not url.startswith(HEALTH_SERVICE)
        if chance is None:
            chance = self.watch.draw()
        return self.watch.note(chance, arrived_s, request_id, traceparents, tracestates, about, may_begin=asks)

    def conclude(self, note: RequestNote, response: bytes, rest_bytes: int = 0) -> bytes:
        """Conclude the note of a request that is answered or, if the response is empty, whose client has left.

        Return the response to send, with the request's id. ``rest_bytes`` follow it.
        """
        if self.watch is not None:
            status = response[9:12].decode() or LEFT
            self.watch.answered(note, status, status >= "500", self.now_s(), len(response) + rest_bytes, "http")
        if not note.id or not response:
            return response
        start = response.find(b"\r\n") + 2
        return b"%bx-request-id: %b\r\n%b" % (response[:start], note.id.encode(), response[start:])

    def why_not_found(self, path: bytes) -> str:
        if self._others is not None and (why := self._others.why_not_found(path)) is not None:
            return why
        shown = path[:200].decode("latin-1")
        name, _, action = path.strip(b"/").partition(b"/")
        if action in _ACTIONS and f"/{name.decode('latin-1')}/predict".encode() not in self._endpoints:
            return (
                f"application {name[:100].decode('latin-1')!r} does not exist: `clipper app list` shows those that do"
            )
        return f"nothing at {shown!r}: expected /APPLICATION/predict or /APPLICATION/observe"

    def learn_head(self, request: bytes, endpoint: Endpoint | None, head: Head) -> None:
        """Remember the plain head of a whole request, which httptools has just parsed into ``head``."""
        size = len(request) - head.content_length
        if request.find(b"\r\n\r\n") + 4 != size:
            return
        rest, varying = without_varying(request[:size])
        if len(rest) > limits.MAX_KNOWN_HEAD_BYTES or len(varying) != len(head.varying):
            return
        if endpoint is None or "POST" not in endpoint.methods or rest in self.known_heads:
            return
        if len(self.known_heads) >= limits.MAX_KNOWN_HEADS:
            self.forget_heads()
        self.known_heads[rest] = KnownHead(rest, endpoint, head.content_length)

    # -- connections -------------------------------------------------------------------------------------

    def add(self, connection: Member) -> bool:
        """Add a new connection. Return False if there are too many and none gives way soon: it must be refused."""
        self.coming = max(self.coming - 1, 0)
        excess = self._excess + 1
        has_room = excess <= 0 or self.make_room(excess) > 0 or self.await_room()
        self.members[connection] = None
        return has_room

    @property
    def _excess(self) -> int:
        return len(self.members) - len(self._leaving) - self.max_connections

    def await_room(self) -> bool:
        """Return whether a connection will give way soon. If so, let it give way at that time."""
        now_s, next_s = self.now_s(), self._giving_way.next_s
        if self._unread_until_s > now_s:
            next_s = min(next_s, self._unread_until_s)
        in_s = next_s - now_s
        if in_s > limits.ROOM_WITHIN_S:
            return False
        if self._awaited_room is None:
            self._awaited_room = self._loop.call_later(max(in_s, LEAVING_S), self._make_awaited_room)
        return True

    def _make_awaited_room(self) -> None:
        self._awaited_room = None
        if self._excess > 0:
            self.make_room(self._excess)
            self.await_room()

    def make_room(self, most: int, giving_way: "GivingWay[Member] | None" = None) -> int:
        """Let up to ``most`` idle connections give way, among all or some; return how many did.

        At most ``MAX_OVER_BOUND`` connections close at a time, since each keeps its descriptor until it is lost.
        """
        count, now_s = 0, self.now_s()
        giving_way = giving_way or self._giving_way
        giving_way.look(self.sweeps, now_s)
        while count < most and len(self._leaving) < limits.MAX_OVER_BOUND:
            idle = giving_way.next(now_s)
            if idle is None:
                break
            if _has_input(idle.transport):
                self._unread_until_s = now_s + limits.ROOM_WITHIN_S
            elif idle in self.members and idle not in self._leaving:
                self._leaving.add(idle)
                idle.give_way()
                count += 1
        return count

    def _arrives_from_s(self, member: Member) -> float | None:
        # A refusal of the writer's own next request would be written before the answer that asks for room.
        return None if member is self._writer else member.arrives_from_s

    def _stop_arriving(self) -> bool:
        """Refuse the request that has been arriving for longest: memory is short. Return whether there was one."""
        now_s = self.now_s()
        self._arriving.look(self.sweeps, now_s)
        connection = self._arriving.next(now_s)
        if connection is None:
            return False
        connection.stop_arriving()
        return True

    def remove(self, connection: Member) -> None:
        self.members.pop(connection, None)
        self._leaving.discard(connection)
        self.on_leaving()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another connection, not even to refuse it."""
        return len(self.members) + self.coming >= self.max_connections + limits.MAX_OVER_BOUND

    def fitting(self, writer: object, response: bytes, closes: bool, has_body: bool, rest_bytes: int = 0) -> bytes:
        """Return a large answer, which ``rest_bytes`` follow, or an error if unread answers leave no room for it.

        ``writer``: its connection.
        """
        self._writer = writer
        has_room = self.budget.has_room(len(response) + rest_bytes)
        self._writer = None
        if has_room:
            return response
        self.shed(limits.SLOW_SWEEPS)
        self.refused["overloaded"] += 1
        body = responses.error_json(
            "overloaded", "answers that clients have not read take up all memory for them: try again in a moment"
        )
        return responses.answer(503, body, close=closes, has_body=has_body)

    def shed(self, slow_sweeps: int) -> None:
        """Cut off the clients that have not read for longest: memory is short. Spare those that have read lately."""
        untaken = [connection for connection in self.members if connection.untaken.size_bytes]
        going_bytes = sum(connection.untaken.size_bytes for connection in untaken if connection.is_going)
        staying = [connection for connection in untaken if not connection.is_going]
        staying.sort(key=lambda connection: (connection.untaken.last_taken_sweep, -connection.untaken.size_bytes))
        for connection in staying:
            is_slow = self.sweeps - connection.untaken.last_taken_sweep >= slow_sweeps
            if not is_slow or self.budget.has_room(-going_bytes):
                return
            going_bytes += connection.untaken.size_bytes
            self.refused["overloaded"] += 1
            connection.cut_off()
