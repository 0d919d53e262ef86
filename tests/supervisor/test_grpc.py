"""A server's port for gRPC: where it is, who shares it, how it is secured."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from clipper.supervisor.config import parse_command_line
from tests.certificates import Authority, Pair
from tests.supervisor.live_server import Server, with_application
from tests.waiting import TIMEOUT_S, until
from tests.worker.frontend.rpc.rpc_messages import INFER, InferResponse, raw_request

ASKED = raw_request(np.array([1, 2], "<f8").tobytes(), [1, 2], "FP64").SerializeToString()
ON = ("--grpc-port", "0")


@contextmanager
def running(home: Path, *options: str) -> Iterator[Server]:
    server = Server(home, *options)
    try:
        yield with_application(server)
        assert server.stop() == 0
    finally:
        server.clean_up()


def answered(server: Server, credentials: Any = None) -> bytes:
    address = server.place.grpc_address
    assert address is not None
    options = [("grpc.use_local_subchannel_pool", 1)]
    opened = (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    with opened:
        answer = InferResponse.FromString(opened.unary_unary(INFER)(ASKED, timeout=TIMEOUT_S))
        return bytes(answer.raw_output_contents[0])


@pytest.mark.long
def test_workers_of_a_server_share_the_port_and_the_next_server_keeps_it(tmp_path: Path) -> None:
    with running(tmp_path / "home", *ON, "--workers", "2") as server:
        address = server.place.grpc_address
        assert answered(server) == b"\x03\0\0\0one"
        assert server.call("GET", "/status")["grpc_address"] == address
        until(lambda: answered(server) and server.metrics.count("\nclipper_grpc_calls_total{") == 2)
        workers = server.worker_pids
        server.kill()
        server.start()
        assert (server.worker_pids, server.place.grpc_address) == (workers, address)
        assert answered(server) == b"\x03\0\0\0one"
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(server.worker_pids) == 2 and server.worker_pids != workers)
        server.until_ready()
        assert answered(server) == b"\x03\0\0\0one"


def test_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(tmp_path / "home")]
        ports = ["--query-port", "0", "--management-port", "0", "--grpc-port", str(port)]
        done = subprocess.run([*argv, *ports], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr and "--grpc-port" in done.stderr


@pytest.mark.parametrize("text", ["65536", "-1", "on", "1339.5"])
def test_port_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_command_line(["--home=h", f"--grpc-port={text}"])
    assert "expected a number from 0 to 65535, or off" in capsys.readouterr().err


def credentials(authority: Authority, mine: Pair | None = None) -> Any:
    own = (mine.key.read_bytes(), mine.certificate.read_bytes()) if mine is not None else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *own)


def test_tls_of_clients_that_show_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "other")
    pair, client, stranger = authority.issue("server"), authority.issue("client"), other.issue("stranger")
    options = (*ON, *pair.options, "--tls-client-ca", str(authority.certificate))
    with running(tmp_path / "home", *options) as server:
        assert answered(server, credentials(authority, client)) == b"\x03\0\0\0one"
        for wrong in (credentials(authority), credentials(authority, stranger), credentials(other, client), None):
            with pytest.raises(grpc.RpcError) as raised:
                answered(server, wrong)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        # A new pair of another authority, whom clients trust from then on.
        other.issue("renewed").put_in_place_of(pair)
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)

        def is_renewed() -> bool:
            try:
                return answered(server, credentials(other, client)) == b"\x03\0\0\0one"
            except grpc.RpcError:
                return False

        until(is_renewed)
