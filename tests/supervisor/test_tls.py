"""A server under TLS: what its clients, its operator and its commands see of it."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clipper import Clipper
from clipper.base.tls.transport import NOT_TLS
from clipper.client import Trust
from clipper.errors import Unavailable
from tests.certificates import Authority, Pair
from tests.serving import post
from tests.supervisor.live_server import Server, answering, processes_of, with_application
from tests.waiting import TIMEOUT_S, until

QUERY = post("/app/predict", {"input": [1, 2]})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """The pair that the server of this file shows; each test leaves a pair there that can be used."""
    return authority.issue("server")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("secure") / "home", *pair.options)
    try:
        yield with_application(server)
        assert server.stop() == 0
        assert processes_of(server.home) == {}
    finally:
        server.clean_up()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def connected(server: Server, authority: Authority, mine: Pair | None = None) -> Iterator[ssl.SSLSocket]:
    """A connection to the query port, by a client that trusts the authority and nobody else."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if mine is not None:
        context.load_cert_chain(mine.certificate, mine.key)
    with (
        socket.create_connection(("127.0.0.1", port_of(server.place.query_url)), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def asked(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(QUERY)
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(1 << 16)
        if not part:
            break
        answer += part
    return answer


def shown(server: Server, authority: Authority) -> str:
    """The name in the certificate that a new connection gets."""
    with connected(server, authority) as connection:
        found = connection.getpeercert()
        assert found is not None
        return str(found["subject"][0][0][1])


def command(home: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(Path(sys.executable).with_name("clipper")), *words]
    given = {**os.environ, "CLIPPER_HOME": str(home), "COLUMNS": "300", **environment}
    return subprocess.run(argv, env=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def problems(server: Server) -> str:
    return "; ".join(server.call("GET", "/status")["problems"])


def test_both_ports_speak_tls_and_nothing_else(secure: Server, authority: Authority) -> None:
    place = secure.place
    assert place.query_url.startswith("https://") and place.management_url.startswith("https://")
    with connected(secure, authority) as connection:
        assert b'"output":"one"' in asked(connection)
    # So does the supervisor where it passes on what an operator tries.
    assert secure.call("POST", "/applications/app/predict", {"input": [1, 2]})["output"] == "one"
    workers = secure.worker_pids
    for url in (place.query_url, place.management_url):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=TIMEOUT_S) as plain:
            plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert plain.recv(1 << 16) == NOT_TLS
    assert secure.worker_pids == workers
    assert secure.call("GET", "/health/live") == {"status": "live"}
    # Its certificate is for commands to read, and its key stays where it was.
    assert (secure.home / "certificate.pem").read_text().count("BEGIN") == 1
    assert secure.files_with("PRIVATE KEY") == set()
    for pid in [*workers, secure.place.pid]:
        assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"PRIVATE KEY" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_half_open_handshakes_of_both_ports_hold_up_nobody(secure: Server, authority: Authority) -> None:
    held = []
    for url in (secure.place.query_url, secure.place.management_url):
        for _ in range(300):
            held.append(socket.create_connection(("127.0.0.1", port_of(url)), timeout=TIMEOUT_S))
            held[-1].sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    for _ in range(3):
        with connected(secure, authority) as connection:
            assert b'"output":"one"' in asked(connection)
        assert secure.call("GET", "/status")["ready"] is True
    for one in held:
        one.close()


@pytest.mark.long
def test_commands_and_clients_of_the_home_need_not_be_told(secure: Server, authority: Authority) -> None:
    home = secure.home
    status = command(home, "status")
    assert (status.returncode, "https://127.0.0.1" in status.stdout) == (0, True), status.stderr
    predicted = command(home, "predict", "app", "[1, 2]")
    assert (predicted.returncode, predicted.stdout) == (0, '"one"\n'), predicted.stderr
    # Nor if they are given its address: that of another would not be trusted.
    assert command(home, "status", "--url", secure.place.management_url).returncode == 0
    loaded = command(home, "load", "app", "--rate", "20", "--duration", "1")
    assert loaded.returncode == 0, loaded.stderr


def test_clients_elsewhere_trust_an_authority(secure: Server, authority: Authority, tmp_path: Path) -> None:
    url, token = secure.place.management_url, secure.token
    elsewhere = command(tmp_path, "status", "--url", url, CLIPPER_TOKEN=token)
    assert elsewhere.returncode == 1
    assert "is not trusted" in elsewhere.stderr and "CLIPPER_CA" in elsewhere.stderr
    told = command(tmp_path, "status", "--url", url, CLIPPER_TOKEN=token, CLIPPER_CA=str(authority.certificate))
    assert told.returncode == 0, told.stderr
    loaded = command(tmp_path, "load", "app", "--rate=9", "--duration=1", "--url", url, CLIPPER_TOKEN=token,
                     CLIPPER_CA=str(authority.certificate))  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    with Clipper.connect(url, tmp_path, token, trust=Trust(ca=authority.certificate)) as clipper:
        assert clipper.predict("app", [1.0, 2.0]).output == "one"
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(Unavailable, match="is not trusted"):
        Clipper.connect(url, tmp_path, token, trust=Trust(ca=stranger.certificate))
    plain = command(tmp_path, "status", "--url", url.replace("https", "http"), CLIPPER_TOKEN=token)
    assert "use https://" in plain.stderr


def test_a_renewed_certificate_is_taken_without_losing_a_connection(
    secure: Server, authority: Authority, pair: Pair
) -> None:
    with connected(secure, authority) as kept, Clipper.connect(home=secure.home) as client:
        assert client.predict("app", [1.0, 2.0]).output == "one"
        authority.issue("renewed").put_in_place_of(pair)
        until(lambda: shown(secure, authority) == "renewed")
        # The client's connections stay; a new one is trusted by the home's new copy.
        assert client.predict("app", [1.0, 2.0]).output == "one"
        client._connections._pool.idle.pop().close()
        assert client.predict("app", [1.0, 2.0]).output == "one"
        authority.issue("hurried").put_in_place_of(pair)
        os.kill(secure.place.pid, signal.SIGHUP)
        until(lambda: shown(secure, authority) == "hurried")
        assert b'"output":"one"' in asked(kept)
        assert secure.call("GET", "/health/live") == {"status": "live"}


@pytest.mark.long
def test_a_broken_pair_changes_nothing_and_is_told(secure: Server, authority: Authority, pair: Pair) -> None:
    before = shown(secure, authority)
    good = pair.certificate.read_bytes()
    pair.certificate.write_bytes(authority.issue("of another key").certificate.read_bytes())
    until(lambda: "is not the key of the certificate" in problems(secure))
    assert "the old certificate stays in use" in secure.log
    assert secure.call("GET", "/status")["ready"] is True
    # Nor does it for a worker that starts now, and for a command that has seen nothing of it.
    secure.kill_workers()
    assert shown(secure, authority) == before
    assert "is not the key" in command(secure.home, "status").stdout
    pair.certificate.unlink()
    os.kill(secure.place.pid, signal.SIGHUP)
    until(lambda: "cannot be read" in problems(secure))
    pair.certificate.write_bytes(good)
    until(lambda: problems(secure) == "")
    assert shown(secure, authority) == before


@pytest.mark.long
def test_hangups_without_end_while_a_pair_is_half_written(secure: Server, authority: Authority, pair: Pair) -> None:
    before = shown(secure, authority)
    certificate, key = pair.certificate.read_bytes(), pair.key.read_bytes()
    with connected(secure, authority) as kept:
        for path, whole in ((pair.certificate, certificate), (pair.key, key)):
            for part in (0, len(whole) // 2, len(whole) - 30):
                path.write_bytes(whole[:part])
                for _ in range(200):
                    os.kill(secure.place.pid, signal.SIGHUP)
                assert b'"output":"one"' in asked(kept)
                until(lambda: "the old certificate stays in use" in problems(secure))
                assert shown(secure, authority) == before
            path.write_bytes(whole)
            until(lambda: problems(secure) == "")
    # Once for each thing that is wrong, not for each hang-up.
    assert secure.log.count("the old certificate stays in use") <= 20


@pytest.mark.long
def test_a_successor_takes_workers_over_only_if_they_met_clients_alike(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    pair, client = authority.issue("short"), authority.issue("client")
    with_application(server.with_options(*pair.options))
    pids = server.worker_pids
    server.kill()
    server.start()
    assert server.worker_pids == pids
    assert shown(server, authority) == "short"
    server.kill()
    server.with_options(*pair.options, "--tls-client-ca", str(authority.certificate)).start()
    until(lambda: server.worker_pids not in ([], pids))
    server.until_ready()
    # The management port asks for a token and no certificate, so that probes and commands go on.
    status = command(server.home, "status")
    assert status.returncode == 0 and "client CA" in status.stdout
    assert server.call("GET", "/status")["client_ca_expires_at"] > time.time()
    assert "clipper_client_ca_expiry_timestamp_seconds 1" in server.metrics
    with connected(server, authority, client) as connection:
        assert b'"output":"one"' in asked(connection)
    stranger = Authority(tmp_path, "stranger").issue("stranger")
    for other in (None, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)), connected(server, authority, other) as connection:
            assert asked(connection) == b""
            raise ConnectionError
    refused = command(server.home, "predict", "app", "[1, 2]")
    assert refused.returncode == 1 and "CLIPPER_CLIENT_CERT" in refused.stderr
    own = {"CLIPPER_CLIENT_CERT": str(client.certificate), "CLIPPER_CLIENT_KEY": str(client.key)}
    assert command(server.home, "predict", "app", "[1, 2]", **own).stdout == '"one"\n'
    server.deploy("m", answering("two"), input_type="float64[2]")
    assert command(server.home, "predict", "app", "[1, 2]", **own).stdout == '"two"\n'


def test_a_pair_that_cannot_be_used_is_refused_at_once(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    encrypted = authority.issue("hidden", password=b"secret")
    missing = tmp_path / "missing.pem"
    cases = [
        (pair.options[:2], "go together|give both"),
        (("--tls-client-ca", str(pair.certificate)), "needs --tls-cert"),
        ((*pair.options[:3], str(missing)), f"--tls-key {missing} cannot be read"),
        ((*pair.options[:3], str(authority.issue("else").key)), "is not the key of the certificate"),
    ]
    home = tmp_path / "home"
    for options, why in cases:
        started = command(home, "start", "--query-port=0", "--management-port=0", *options)
        assert started.returncode in (1, 2)
        # Boxes of usage errors break lines.
        said = " ".join(started.stderr.replace("│", " ").split())
        assert any(part in said for part in why.split("|")), said
        assert not (home / "supervisor.json").exists()
    argv = [sys.executable, "-m", "clipper.supervisor", "--home", str(home), *encrypted.options]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert refused.returncode == 1 and "is encrypted" in refused.stderr


@pytest.mark.long
def test_when_the_certificate_expires_is_told(secure: Server, authority: Authority, pair: Pair) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = secure.call("GET", "/status")
        return found

    def metric() -> float:
        (line,) = (each for each in secure.metrics.splitlines() if each.startswith("clipper_certificate_expiry"))
        return float(line.split()[1])

    now_s = time.time()
    assert 29 * 86400 < status()["certificate_expires_at"] - now_s < 31 * 86400
    assert status()["problems"] == []
    for days, told in ((13.5, "expires in 13 days"), (-1.0, "has expired")):
        authority.issue("soon", days=days).put_in_place_of(pair)
        until(lambda told=told: any(told in each for each in status()["problems"]))
        assert abs(status()["certificate_expires_at"] - now_s - days * 86400) < 3600
        assert abs(metric() - now_s - days * 86400) < 3600
        # Queries of clients that do not look are answered: whether to trust it is theirs to decide.
        assert status()["ready"] is True
    told_by_command = command(secure.home, "status")
    assert told_by_command.returncode == 0 and "until 20" in told_by_command.stdout, told_by_command.stderr
    assert "has expired" in told_by_command.stdout
    authority.issue("server").put_in_place_of(pair)
    until(lambda: status()["problems"] == [])
