"""Keys let clients in on a connection without a socket, however its bytes come and whenever keys change."""

import hashlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.control.snapshot import ApplicationSnapshot, KeySnapshot, Snapshot
from clipper.worker.frontend.clients import Clients, Guarded
from clipper.worker.frontend.http.port import Port
from tests.example_counts import share_of
from tests.serving import post
from tests.worker.frontend.fake_transport import Echo, Later, Peer, run
from tests.worker.frontend.http_calls import cut

NAMES = ("a", "b", "c")


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def snapshot(generation: int, keys: dict[str, tuple[str, ...]], **limits: Any) -> Snapshot:
    """``keys``: what each is for. The applications are echo and later."""
    known = tuple(KeySnapshot(name, digest(name), applications) for name, applications in keys.items())
    applications = tuple(ApplicationSnapshot(name, "float64", 100.0, **limits) for name in ("echo", "later"))
    return Snapshot(generation, applications, keys=known)


def guard(port: Port, clients: Clients, later: Later | None = None, needs_key: bool = True) -> None:
    port.serve(
        {
            b"/echo/predict": Guarded("echo", needs_key, Echo(), clients),
            b"/later/predict": Guarded("later", needs_key, later or Later(), clients),
        }
    )


REQUESTS = st.tuples(st.sampled_from([*NAMES, "unknown"]), st.booleans(), st.integers(0, 3))
CHANGES = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, st.sampled_from([(), ("echo",), ("other",)])))


@settings(max_examples=share_of(60))
@given(
    st.lists(st.tuples(CHANGES, st.lists(REQUESTS, max_size=6), st.lists(st.integers(0, 5000), max_size=4)), max_size=5)
)
def test_the_keys_of_the_moment_decide_however_the_bytes_come(
    rounds: list[tuple[dict[str, tuple[str, ...]], list[tuple[str, bool, int]], list[int]]],
) -> None:
    async def test(port: Port) -> None:
        clients = Clients(0, port.now_s)
        guard(port, clients)
        for generation, (keys, requests, places) in enumerate(rounds):
            clients.follow(snapshot(generation, keys))
            clients.follow(snapshot(generation - 1, dict.fromkeys(NAMES, ())))  # one that comes late changes nothing
            port.forget_heads()
            for name, lower, size in requests:
                header = f"{'bearer' if lower else 'Bearer'} {name}"
                peer = Peer(port)
                peer.send(*cut(post("/echo/predict", b"x" * size, Authorization=header) * 3, places))
                if name not in keys:
                    wanted = [401]  # and the connection ends
                elif keys[name] == ("other",):
                    wanted = [403]
                else:
                    wanted = [200] * 3
                assert [response.status for response in peer.responses] == wanted
                peer.leave()

    run(test)


def test_a_head_that_was_refused_is_not_known() -> None:
    async def test(port: Port) -> None:
        clients = Clients(0, port.now_s)
        guard(port, clients)
        for number in range(50):
            Peer(port).send(post("/echo/predict", b"x", Authorization=f"Bearer guess{number}"))
        assert port.known_heads == {}
        assert port.refused["unauthorized"] == 50

    run(test)


def test_whoever_leaves_or_is_answered_is_in_flight_no_more() -> None:
    async def test(port: Port) -> None:
        clients, later = Clients(0, port.now_s), Later()
        clients.follow(snapshot(1, {}, max_in_flight=3))
        guard(port, clients, later, needs_key=False)
        limit = clients.limit_of("later")
        assert limit is not None
        for _ in range(2):  # the second time the head is known
            peer, other = Peer(port), Peer(port)
            peer.send(post("/later/predict", b"x") * 2)
            other.send(post("/later/predict", b"x") * 2)
            assert limit.in_flight == 3
            assert [response.status for response in other.responses] == []  # in its turn, behind the first
            later.answer(-1)
            assert [response.status for response in other.responses] == [200, 429]
            other.leave()
            assert limit.in_flight == 2
            peer.leave()
            later.answer(0)  # too late, and harmless
            assert limit.in_flight == 0
            later.exchanges.clear()
            later.bodies.clear()

    run(test)


def test_work_that_goes_on_when_its_client_has_left_stays_in_flight() -> None:
    async def test(port: Port) -> None:
        clients, later = Clients(0, port.now_s), Later()
        clients.follow(snapshot(1, {}, max_in_flight=1))
        guard(port, clients, later, needs_key=False)
        peer = Peer(port)
        peer.send(post("/later/predict", b"x"))
        later.exchanges[0].started = None  # as of feedback, which is learned all the same
        peer.leave()
        limit = clients.limit_of("later")
        assert limit is not None and limit.in_flight == 1
        later.answer(0)
        assert limit.in_flight == 0

    run(test)


def test_workers_share_what_is_bounded() -> None:
    async def test(port: Port) -> None:
        shares = []
        for index in range(3):
            clients = Clients(index, port.now_s)
            applications = (ApplicationSnapshot("echo", "float64", 100.0, max_in_flight=10, max_per_second=30),)
            clients.follow(Snapshot(1, applications, workers=3))
            limit = clients.limit_of("echo")
            assert limit is not None
            shares.append((limit.max_in_flight, limit.max_per_second))
        assert shares == [(4, 10), (3, 10), (3, 10)]

    run(test)


def test_a_limit_that_is_removed_or_of_another_application_begins_anew() -> None:
    async def test(port: Port) -> None:
        clients = Clients(0, port.now_s)
        limited = ApplicationSnapshot("echo", "float64", 100.0, id="echo#1", max_in_flight=2)
        clients.follow(Snapshot(1, (limited,)))
        first = clients.limit_of("echo")
        clients.follow(Snapshot(2, (limited,)))
        assert clients.limit_of("echo") is first
        clients.follow(Snapshot(3, (ApplicationSnapshot("echo", "float64", 100.0, id="echo#2", max_in_flight=2),)))
        assert clients.limit_of("echo") is not first
        clients.follow(Snapshot(4, (ApplicationSnapshot("echo", "float64", 100.0, id="echo#2"),)))
        assert clients.limit_of("echo") is None
        assert clients.statistics() == ()

    run(test)


def test_a_key_that_expires_is_refused_also_where_its_head_is_known() -> None:
    async def test(port: Port) -> None:
        now = [100.0]
        clients = Clients(0, port.now_s, lambda: now[0])
        guard(port, clients)
        clients.follow(
            Snapshot(1, snapshot(1, {}).applications, keys=(KeySnapshot("a", digest("a"), expires_at=160.0),))
        )
        statuses = []
        for now[0] in (100.0, 159.9, 160.0, 1e9, 159.0):
            peer = Peer(port)
            peer.send(post("/echo/predict", b"x", Authorization="Bearer a"))
            statuses.append([response.status for response in peer.responses])
        assert statuses == [[200], [200], [401], [401], [200]]

    run(test)
