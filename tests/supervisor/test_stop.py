"""A server that is told to stop: it is not ready for its drain delay, and answers all the same."""

import os
import signal

import grpc
import httpx
import pytest

from clipper.supervisor.config import parse_command_line
from tests.supervisor.live_server import APP, NO_TLS, Server, with_application
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.rpc_messages import message_class

# Longer than a test waits: the delay ends because somebody asks twice.
DELAY = ("--drain-delay-s", "600")
HEALTH = "grpc.health.v1.Health/Check"


def get(server: Server, path: str) -> httpx.Response:
    return httpx.get(server.place.query_url + path, timeout=TIMEOUT_S, verify=NO_TLS)


def health(server: Server, service: str) -> str:
    address = server.place.grpc_address
    assert address is not None
    request, answer = (message_class(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response"))
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(f"/{HEALTH}")
        status = answer.FromString(call(request(service=service).SerializeToString(), timeout=TIMEOUT_S)).status
    return str(answer.ServingStatus.Name(status))


def test_while_it_waits_to_drain_it_is_not_ready_anywhere_and_answers(server: Server) -> None:
    with_application(server.with_options(*DELAY, "--grpc-port", "0", "--workers", "2"))
    assert get(server, "/health/ready").json() == {"status": "ready"}
    assert health(server, "") == health(server, "clipper.Feedback") == "SERVING"
    assert server.call("POST", "/stop", status=202) == {"status": "stopping", "drain_delay_s": 600.0}
    for path in ("/health/ready", "/v2/health/ready", "/v2/models/app/ready"):
        # Each connection may meet another worker, and each of them has to be told.
        until(lambda path=path: [get(server, path).status_code for _ in range(8)] == [503] * 8)
    refused = get(server, "/health/ready").json()
    assert refused["error"] == "unavailable" and "the server is stopping" in refused["cause"]
    assert get(server, "/health/live").status_code == get(server, "/v2/health/live").status_code == 200
    assert health(server, "") == health(server, "inference.GRPCInferenceService") == "NOT_SERVING"
    assert server.ask("GET", "/health/ready").status_code == 503
    assert server.ask("GET", "/health/live").status_code == 200
    status = server.call("GET", "/status")
    assert (status["ready"], status["stopping"]) == (False, True)
    assert "the server is stopping" in status["problems"][0]
    assert server.predict("app", [1, 2])["output"] == "one"
    # A change meanwhile reaches the workers, which stay unready.
    server.call("POST", "/applications", APP | {"name": "later"})
    until(lambda: server.predict("later", [1, 2]).get("output") == "one")
    assert get(server, "/health/ready").status_code == 503
    # A worker that dies is started again, and is not ready either.
    killed = server.worker_pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(pids := server.worker_pids) == 2 and not {*pids} & {*killed})
    until(lambda: all(worker["state"] == "ready" for worker in server.call("GET", "/status")["workers"]))
    until(lambda: server.predict("app", [1, 2]).get("output") == "one")
    assert get(server, "/health/ready").status_code == 503
    # Asked twice, it does not wait.
    assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.long
def test_a_supervisor_that_takes_over_from_one_that_was_stopping_is_ready(server: Server) -> None:
    with_application(server.with_options(*DELAY))
    assert server.process is not None
    server.process.terminate()
    until(lambda: get(server, "/health/ready").status_code == 503)
    workers = server.worker_pids
    server.kill()
    server.start()
    until(lambda: get(server, "/health/ready").status_code == 200)
    assert server.worker_pids == workers
    assert server.predict("app", [1, 2])["output"] == "one"
    # Two signals at once would count as one.
    server.call("POST", "/stop", status=202)
    assert server.stop() == 0


@pytest.mark.long
def test_the_delay_passes(server: Server) -> None:
    with_application(server.with_options("--drain-delay-s", "0.5"))
    assert server.stop() == 0
    told = server.log
    assert "stopping in 0.5 s" in told and told.index("stopping in") < told.index("stopping\n") < told.index("stopped")


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "3601", "soon"])
def test_a_delay_that_is_not_one(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", f"--drain-delay-s={text}"])
    assert "--drain-delay-s" in capsys.readouterr().err
