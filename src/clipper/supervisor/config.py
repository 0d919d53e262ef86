"""The supervisor's settings, read from its command line and checked."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from clipper.control.snapshot import FEEDBACK_QUERIES
from clipper.decisions.segments import DEFAULT_LOG_BYTES, LEAST_LOG_BYTES
from clipper.errors import InvalidArgument
from clipper.hosts import address_of, is_loopback
from clipper.run_as import RunAs, find_run_as
from clipper.selection.stores.store import MAX_CONTEXTS
from clipper.tls.material import TlsMode, TlsPaths
from clipper.types import STORE_VARIABLE, Transport

QUERY_PORT = 1337
MANAGEMENT_PORT = 1338
CACHE_BYTES = 64 * 1024 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
# Enough to roll back over a few weeks of deployments; each keeps its artifact on disk.
KEEP_VERSIONS = 10
# Pickled models need the Python that they were made with, which is most likely ours.
DOCKER_BASE_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
DOCKER_NETWORK = "bridge"
DOCKER_TRANSPORT: Transport = "unix"

# Smaller ones would refuse ordinary requests; larger ones cost a worker tenths of a second to read.
LEAST_MAX_BODY_BYTES = 64 * 1024
MOST_MAX_BODY_BYTES = 64 * 1024 * 1024
# Each is one event loop; more than this many cores on one machine call for several machines.
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Config:
    """What a server is started with.

    Attributes:
        host, management_host: where each port listens.
        allowed_host: names by which the management port may be called, besides what it listens on.
        insecure: it may listen where others can read its traffic.
        open_metrics: its metrics need no token.
        api_keys: every application answers only clients that show a key.
        tls_cert, tls_key: files of what both ports show their clients; without them, neither has TLS.
        tls_client_ca: the file of the authorities that sign the certificates of the query port's clients.
        query_port, management_port: 0 is any free port.
        cache_bytes: of each worker.
        max_body_bytes: of a request on the query port, where an application's inputs need no more.
        max_contexts: how many the selection store keeps of each application.
        feedback_queries: how many each worker keeps for feedback.
        decision_log_bytes: of the decision log's files together.
        keep_versions: how many versions of each model that do not run are kept.
        store: address of the selection store; None is a file in the home.
        run_as: the user that models and the builds of their packages run as.
        docker_base_image: what images of models are built on.
        docker_network: of containers and builds in Docker.
        docker_transport: how containers in Docker are dialled.
    """

    home: Path
    host: str = "127.0.0.1"
    management_host: str = "127.0.0.1"
    allowed_host: tuple[str, ...] = ()
    insecure: bool = False
    open_metrics: bool = False
    api_keys: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    query_port: int = QUERY_PORT
    management_port: int = MANAGEMENT_PORT
    workers: int = 1
    cache_bytes: int = CACHE_BYTES
    max_body_bytes: int = MAX_BODY_BYTES
    store: str | None = None
    decision_log_bytes: int = DEFAULT_LOG_BYTES
    max_contexts: int = MAX_CONTEXTS
    feedback_queries: int = FEEDBACK_QUERIES
    keep_versions: int = KEEP_VERSIONS
    run_as: RunAs | None = None
    docker_base_image: str = DOCKER_BASE_IMAGE
    docker_network: str = DOCKER_NETWORK
    docker_transport: Transport = DOCKER_TRANSPORT

    @property
    def tls(self) -> TlsPaths | None:
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsPaths(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def tls_mode(self) -> TlsMode:
        if self.tls is None:
            return "off"
        return "server" if self.tls_client_ca is None else "mutual"


def parse_command_line(arguments: Sequence[str] | None = None) -> Config:
    """Read the command line, or ``arguments``. Exits with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m clipper.supervisor", description="Run a Clipper server.")
    parser.add_argument("--home", type=Path, required=True, help="the folder of registry, artifacts, sockets and logs")
    parser.add_argument("--host", default="127.0.0.1", help="the address of the query port")
    parser.add_argument("--management-host", default="127.0.0.1", help="the address of the management port")
    parser.add_argument(
        "--allowed-host", action="append", type=_host, default=[], help="a name that it may be called by"
    )
    parser.add_argument("--insecure", action="store_true", help="let it be reached from other machines without TLS")
    parser.add_argument("--open-metrics", action="store_true", help="answer /metrics without a token")
    parser.add_argument("--api-keys", action="store_true", help="answer predict and observe only with a key")
    parser.add_argument("--tls-cert", type=Path, help="the certificate that both ports show: PEM, its chain behind it")
    parser.add_argument("--tls-key", type=Path, help="its private key")
    parser.add_argument(
        "--tls-client-ca", type=Path, help="authorities that sign the certificates of the query port's clients"
    )
    parser.add_argument("--query-port", type=_between(0, 65535), default=QUERY_PORT, help="0: any free port")
    parser.add_argument("--management-port", type=_between(0, 65535), default=MANAGEMENT_PORT, help="0: any free port")
    parser.add_argument("--workers", type=_between(1, MAX_WORKERS), default=1, help="how many query workers")
    parser.add_argument("--cache-bytes", type=_between(0, 1 << 50), default=CACHE_BYTES, help="of each worker's cache")
    parser.add_argument(
        "--max-body-bytes",
        type=_between(LEAST_MAX_BODY_BYTES, MOST_MAX_BODY_BYTES),
        default=MAX_BODY_BYTES,
        help="of a request on the query port, where an application's inputs need no more",
    )
    parser.add_argument(
        "--store",
        type=_store_address,
        # Not on the command line, which everybody on the machine can read, if there is a password in it.
        default=os.environ.get(STORE_VARIABLE),
        help="where learned state is kept: sqlite:PATH (in the home by default), redis://…, or file:PATH of a file "
        f"that says so; if not given, what {STORE_VARIABLE} says",
    )
    parser.add_argument(
        "--decision-log-bytes",
        type=_between(LEAST_LOG_BYTES, 1 << 50),
        default=DEFAULT_LOG_BYTES,
        help="of the decision log's files together",
    )
    parser.add_argument(
        "--max-contexts",
        type=_between(1, 1 << 40),
        default=MAX_CONTEXTS,
        help="contexts that the store keeps of each application",
    )
    parser.add_argument(
        "--feedback-queries",
        type=_between(1, 1 << 40),
        default=FEEDBACK_QUERIES,
        help="queries that each worker keeps for feedback",
    )
    parser.add_argument(
        "--keep-versions",
        type=_between(1, 1 << 40),
        default=KEEP_VERSIONS,
        help="of each model, of those that do not run",
    )
    parser.add_argument("--run-as", type=_run_as, help="USER[:GROUP] that models and builds of packages run as")
    parser.add_argument("--docker-base-image", default=DOCKER_BASE_IMAGE, help="what images of models are built on")
    parser.add_argument("--docker-network", default=DOCKER_NETWORK, help="of containers and builds in Docker")
    parser.add_argument(
        "--docker-transport",
        choices=get_args(Transport),
        default=DOCKER_TRANSPORT,
        help="how its containers are dialled",
    )
    given = vars(parser.parse_args(arguments))
    config = Config(**{**given, "allowed_host": tuple(given["allowed_host"])})
    if (config.tls_cert is None) != (config.tls_key is None):
        parser.error("--tls-cert and --tls-key go together; they may name one file that holds both")
    if config.tls_client_ca is not None and config.tls is None:
        parser.error(
            "--tls-client-ca needs --tls-cert and --tls-key: a server without a certificate cannot ask clients for one"
        )
    if not (is_loopback(config.management_host) or config.tls or config.insecure):
        parser.error(
            f"--management-host {config.management_host} can be reached from other machines, and what goes there, "
            "tokens among it, can be read on the way: give --tls-cert and --tls-key, put a proxy with TLS before "
            "127.0.0.1, or say --insecure"
        )
    if config.docker_transport == "tcp" and config.docker_network == "none":
        parser.error("--docker-transport tcp: nothing reaches a container in --docker-network none; choose another")
    return config


def _host(text: str) -> str:
    """A host without a port: hosts are compared without it, so one with a port would never match."""
    if address_of(text) is None and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host: expected a name or an address without a port")
    return text


def _run_as(text: str) -> RunAs:
    try:
        return find_run_as(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _store_address(store: str) -> str:
    """The address that is meant; a path in it is absolute, since workers run in another folder than we do."""
    scheme, _, path = store.partition(":")
    if scheme == "file":
        try:
            return _store_address(Path(path).expanduser().read_text().strip())
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"{path} cannot be read: {type(error).__name__}") from error
    return f"sqlite:{Path(path).expanduser().absolute()}" if scheme == "sqlite" and path else store


def _between(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is not between {least} and {most}")
        return number

    return parse
