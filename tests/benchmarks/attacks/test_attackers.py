"""The attacks of the benchmark, on a real worker: they do what they say, and their end is the end of what they took."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from benchmarks.attacks import attackers
from tests.certificates import Authority
from tests.serving import application, model, version
from tests.supervisor.live_server import APP, Server
from tests.waiting import until
from tests.worker.frontend.rpc.rpc_system import RpcSystem, rpc_serving

SUM = "def predict(inputs):\n    return [float(sum(row)) for row in inputs]\n"


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with rpc_serving() as started:
        serving = started.serving
        serving.start_worker(grpc_port=started.port)
        container = serving.start_container(SUM)
        names = ("neighbour", "guest", "greedy", "cached", "large")
        serving.apply([application(name, slo_ms=10_000.0) for name in names], [model(version(container))])
        yield started


@pytest.mark.long
@pytest.mark.parametrize("attack", [attack for attack in attackers.ATTACKS if attack not in attackers.OF_TLS])
def test_a_worker_answers_others_after_an_attack(
    system: RpcSystem, attack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attackers, "HOLDERS", 2)
    monkeypatch.setattr(attackers, "HALF_REQUESTS", 20)
    monkeypatch.setattr(attackers, "HALF_BODY_BYTES", 100_000)
    worker = system.serving.worker
    address = system.address if attack.startswith("grpc") else f"127.0.0.1:{worker.port}"
    before = worker.statistics()
    uvloop.run(attackers.main(attack, address, 2, 0.5))

    def answers_newcomers() -> bool:
        uvloop.run(attackers.main("newcomers", f"127.0.0.1:{worker.port}", 1, 0.2))
        answered, failed, _ = capsys.readouterr().out.split()
        return int(answered) > 0 and int(failed) == 0

    until(answers_newcomers)  # a busy machine still works for the attackers, who have left
    sent = worker.statistics()
    assert sent != before, "it had something to do"


@pytest.mark.long
@pytest.mark.parametrize("attack", attackers.OF_TLS)
def test_a_server_answers_others_beside_an_attack_on_its_handshakes(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attackers, "HALF_REQUESTS", 300)
    pair = Authority(tmp_path).issue("server")
    server = Server(tmp_path / "home", *pair.options).start()
    try:
        assert server.deploy("m", SUM, input_type="float64[*]")["state"] == "ready"
        server.call("POST", "/applications", {**APP, "name": "neighbour", "input_type": "float64[*]"})
        address = server.place.query_url

        async def beside() -> None:
            async with asyncio.timeout(100):
                await asyncio.gather(
                    attackers.main(attack, address, 2, 2.0), attackers.main("newcomers", address, 1, 1.0)
                )

        uvloop.run(beside())
        answered, failed, _ = capsys.readouterr().out.split()
        assert int(answered) > 0 and int(failed) == 0
    finally:
        server.clean_up()
