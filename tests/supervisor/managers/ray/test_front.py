"""A real container behind a real front, without Ray."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from clipper.base.tcp import CUT_AFTER_S
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ProtocolViolation
from clipper.model.protocol.batches import make_encoder
from clipper.supervisor.managers.caller import Caller, connect
from clipper.supervisor.managers.ray import front as front_module
from clipper.supervisor.managers.ray.front import TlsFront, make_identity
from clipper.values.types import ModelId
from clipper.worker.__main__ import PreciseLoop
from clipper.worker.link import ReplicaLink
from tests.event_loops import ShiftedLoop
from tests.hearing import Hearing
from tests.small_container import DOUBLES, SmallContainer
from tests.waiting import until_async

DIGITS = ModelId("digits", "1")
ENCODER = make_encoder(DOUBLES)

Scenario = Callable[[SmallContainer, ReplicaAddress], Coroutine[Any, Any, None]]


@pytest.fixture(params=[ShiftedLoop, PreciseLoop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    async def with_front(scenario: Scenario) -> None:
        async with fronted(tmp_path / "s") as (container, address):
            await scenario(container, address)

    def run_on_loop(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(with_front(scenario))

    return run_on_loop


@asynccontextmanager
async def fronted(path: Path) -> AsyncIterator[tuple[SmallContainer, ReplicaAddress]]:
    """A container with a front before it, and where the front is dialled."""
    certificate, context = make_identity()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(TlsFront(listener, context, path).run())
        place = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        container = await SmallContainer(path).start()
        await until_async(lambda: is_listening(place))
        # Those of the connections that it accepts.
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == CUT_AFTER_S * 1000
        yield container, ReplicaAddress("digits:1#1.g1", place, "secret", certificate)
        serving.cancel()
        await asyncio.wait([serving])
        await container.kill()


def is_listening(place: str) -> bool:
    host, _, port = place.removeprefix("tcp:").rpartition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) == 0


def test_a_worker_and_the_supervisor_reach_a_container_over_tls(run: Callable[[Scenario], None]) -> None:
    async def scenario(container: SmallContainer, address: ReplicaAddress) -> None:
        hearing = Hearing()
        link = ReplicaLink(DIGITS, ENCODER, address.address, address.token, hearing, address.certificate)
        link.open()
        await until_async(lambda: link.is_linked)
        assert container.tokens == ["secret"]
        # More than a read, a record of TLS and a socket's buffer each hold.
        row = bytes(8 * 1_000_000)
        link.send(7, [row])
        await until_async(lambda: len(container.batches) == 1)
        (batch,) = container.batches
        assert batch.rows == [row]
        answer = b'"' + b"x" * 3_000_000 + b'"'
        batch.answer([answer])
        await until_async(lambda: "results" in hearing.kinds())
        assert hearing.heard[-1] == ("results", 7, [answer])
        with closing(await Caller.dial(address)):
            assert container.tokens == ["secret", "secret"]
        await container.kill()
        await until_async(lambda: "lost" in hearing.kinds())
        link.close()

    run(scenario)


def test_only_the_containers_own_certificate_is_trusted(run: Callable[[Scenario], None]) -> None:
    async def scenario(container: SmallContainer, address: ReplicaAddress) -> None:
        for certificate in (make_identity()[0], "no certificate", "\0"):
            hearing = Hearing()
            link = ReplicaLink(DIGITS, ENCODER, address.address, "secret", hearing, certificate)
            link.open()
            await link.first_attempt
            assert link.last_error and hearing.heard == []
            link.close()
        with pytest.raises(ssl.SSLError):
            await Caller.dial(ReplicaAddress("x", address.address, "secret", make_identity()[0]))
        # It got no token from any of them.
        assert container.tokens == []

    run(scenario)


def test_a_caller_without_tls_does_not_get_to_the_container(run: Callable[[Scenario], None]) -> None:
    async def scenario(container: SmallContainer, address: ReplicaAddress) -> None:
        with pytest.raises((OSError, ProtocolViolation)):
            await Caller.dial(ReplicaAddress("x", address.address, "secret"))
        assert container.callers == []

    run(scenario)


def test_more_connections_than_there_may_be_are_refused(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_module, "MAX_CONNECTIONS", 1)

    async def scenario(container: SmallContainer, address: ReplicaAddress) -> None:
        with closing(await Caller.dial(address)), pytest.raises(OSError):  # the front closes it without a word
            await connect(address)
        # There is room again once the first has gone.
        await until_async(lambda: container.callers == [])
        (await Caller.dial(address)).close()

    run(scenario)


async def strange(address: ReplicaAddress, sends: bytes | None) -> asyncio.StreamWriter:
    """Somebody of the cluster's network, who has no token: without TLS, or with it and some text."""
    host, _, port = address.address.removeprefix("tcp:").rpartition(":")
    if sends is None:
        return (await asyncio.open_connection(host, int(port)))[1]
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    writer = (await asyncio.open_connection(host, int(port), ssl=trusting))[1]
    writer.write(sends)
    return writer


@pytest.mark.parametrize("sends", [None, b"", b"x"], ids=["no handshake", "silent", "half a frame"])
def test_strangers_give_way_and_keep_nobody_out(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch, sends: bytes | None
) -> None:
    monkeypatch.setattr(front_module, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(front_module, "MAX_HANDSHAKES", 4)

    async def scenario(container: SmallContainer, address: ReplicaAddress) -> None:
        hearing = Hearing()
        link = ReplicaLink(DIGITS, ENCODER, address.address, address.token, hearing, address.certificate)
        link.open()
        await until_async(lambda: link.is_linked)
        strangers = [await strange(address, sends) for _ in range(20)]
        for _ in range(3):
            (await Caller.dial(address)).close()
            strangers += [await strange(address, sends) for _ in range(20)]
        # The link that was up before the strangers came goes on.
        assert link.is_linked and "lost" not in hearing.kinds()
        # The container knows of none that sends it nothing, and of the others as few as there may be.
        assert len(container.callers) <= (8 if sends else 1)
        for stranger in strangers:
            stranger.transport.abort()
        link.close()

    run(scenario)


def test_nothing_listens_until_the_container_does(tmp_path: Path) -> None:
    async def test() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(TlsFront(listener, make_identity()[1], tmp_path / "s").run())
            place = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
            await asyncio.sleep(0)
            assert not is_listening(place)
            # A file of another kind is not a socket that listens.
            (tmp_path / "s").touch()
            await asyncio.sleep(2 * front_module.LOOK_EVERY_S)
            assert not is_listening(place)
            serving.cancel()
            await asyncio.wait([serving])

    asyncio.run(test())
