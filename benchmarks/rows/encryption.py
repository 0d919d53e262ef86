"""Rows on what TLS costs a query worker: processor time, which says the same on a machine that is busy with others."""

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.harness import servers, wrk
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import FOUR, SLO_MS, TURN_S, TURNS, WARM_UP_S, Workbench, median_ratio

CONNECTIONS = 32
HANDSHAKES = 300
# Most servers have the first today, and some still have the second.
KEYS = {
    "ecdsa_p256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa_2048": ["-newkey", "rsa:2048"],
}


def tls_query(bench: Workbench) -> Outcome:
    with _server() as plain, _server(*self_signed(bench.folder, "ecdsa_p256")) as secure:
        sides = [(server, server.process_ids()[1]) for server in (plain, secure)]
        for server, worker in sides:
            _query_us(server, worker, WARM_UP_S)
        rounds = [[_query_us(server, worker, TURN_S) for server, worker in sides] for _ in range(TURNS)]
    without, with_tls = (list(column) for column in zip(*rounds))
    ratio = median_ratio(with_tls, without)
    numbers = {"plain_us": without, "tls_us": with_tls, "ratio": ratio}
    value = f"{median(without):.1f} to {median(with_tls):.1f} µs, {ratio:.2f} ×"
    return Outcome(value, ratio <= 1.5, numbers)


def tls_handshake(bench: Workbench) -> Outcome:
    measured = {key: _handshake_us(self_signed(bench.folder, key)) for key in KEYS}
    value = ", ".join(f"{key} {us:.0f} µs" for key, us in measured.items())
    return Outcome(value, None, {"handshake_us": measured})


@contextlib.contextmanager
def _server(*options: str) -> Iterator[servers.ClipperServer]:
    """One that answers sums of four floats."""
    with servers.clipper(*options) as server:
        server.deploy("sum", "total:total", "--input-type", "doubles", slo_ms=SLO_MS)
        yield server


def self_signed(folder: Path, key: str) -> tuple[str, ...]:
    """The options of a server that shows a certificate of such a key."""
    certificate, private = folder / f"{key}.pem", folder / f"{key}.key"
    if not certificate.exists():
        files = ["-nodes", "-keyout", str(private), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
        subprocess.run(["openssl", "req", "-x509", *KEYS[key], *files], check=True, capture_output=True, timeout=60)
    return "--tls-cert", str(certificate), "--tls-key", str(private)


def _query_us(server: servers.ClipperServer, worker: int, seconds: int) -> float:
    """The worker's processor time for a query over connections that stay."""
    before_ns = servers.processor_ns(worker)
    load = wrk.run(server.url("sum"), FOUR, connections=CONNECTIONS, seconds=seconds)
    return (servers.processor_ns(worker) - before_ns) / load.requests / 1e3


def _handshake_us(options: tuple[str, ...]) -> float:
    """The worker's processor time for a connection with a whole handshake and nothing else."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with servers.clipper(*options) as server:
        worker, address = server.process_ids()[1], server.query_address()
        before_ns = servers.processor_ns(worker)
        for _ in range(HANDSHAKES):
            with socket.create_connection(address) as connection, context.wrap_socket(connection):
                pass
        return (servers.processor_ns(worker) - before_ns) / HANDSHAKES / 1e3


ROWS = [
    Row("tls_query", "worker's processor time for a query: with TLS over without", "≤ 1.5 ×", tls_query),
    Row("tls_handshake", "worker's processor time for a handshake", "tells", tls_handshake),
]
