"""The settings that a server is started with."""

import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Struct

from clipper.base.extras import has_docker, has_grpc, has_otel, has_ray
from clipper.base.hosts import is_loopback
from clipper.base.tls.material import TlsPaths
from clipper.settings.fields import Setting
from clipper.settings.texts import (
    checked_ports,
    read_endpoint,
    read_grpc_port,
    read_host,
    read_origin,
    read_registry,
    size,
)
from clipper.settings.version import ManagerName
from clipper.values.types import REGISTRY_VARIABLE, STORE_VARIABLE

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Tracing a request costs a worker as much as several queries. One in a hundred shows where the time goes.
TRACE_SHARE = 0.01
# A day: no query lives for longer.
MOST_SLOW_QUERY_MS = 86_400_000
# How workers dial a container in Docker: over a unix socket in a shared folder, or over TCP with a token.
Transport = Literal["unix", "tcp"]
# How models of this machine start: forked from a process with their libraries in memory, or each by itself.
StartMethod = Literal["forkserver", "spawn"]
ReadyWhen = Literal["any", "all"]

# Settings that may hold a password, and the variables that pass them to the server: others can read a command line.
ADDRESSES = {"store": STORE_VARIABLE, "registry": REGISTRY_VARIABLE}
# The beginnings of addresses that name a path.
PATH_SCHEMES = ("sqlite:", "file:")
# Each worker is one event loop. For more cores than this, use several machines.
MAX_WORKERS = 64
# About the size of a hundred images in base64.
MAX_BODY_BYTES = 8 * 1024 * 1024
# A smaller bound would refuse ordinary requests. An image of 3x1024x1024 as JSON numbers has about 60 MB; a larger body
# costs a worker tenths of a second to read.
LEAST_MAX_BODY_BYTES = 64 * 1024
MOST_MAX_BODY_BYTES = 64 * 1024 * 1024
# The default bound is the size of 2,900 x 2,900 float32. As JSON, in which float32 are up to 6.25 times as long, such
# an output still fits into the memory that a worker has for requests and answers.
MAX_OUTPUT_BYTES = 32 * 1024 * 1024
# A smaller bound would refuse ordinary outputs; a batch of larger ones does not fit into a frame of the protocol.
LEAST_MAX_OUTPUT_BYTES = 64 * 1024
MOST_MAX_OUTPUT_BYTES = 512 * 1024 * 1024
# Contexts that the store keeps for an application by default: some 140 MB with five models.
MAX_CONTEXTS = 100_000
# Queries that a worker keeps for feedback by default: 400 a second for the default 600 s, some 100 MB.
FEEDBACK_QUERIES = 250_000
# With less, a segment has no room for several blocks.
LEAST_LOG_BYTES = 64 * 1024 * 1024
DEFAULT_LOG_BYTES = 1024 * 1024 * 1024
GRPC_PORT = 1339
# Enough to roll back by a few weeks of deployments; each version keeps its artifact on disk.
KEEP_VERSIONS = 10
KEEP_PREVIOUS = 1


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """Settings of the logs, and of the traces, that a server and its workers write."""

    log_format: Annotated[LogFormat, Setting("How the server, its workers and its containers write their logs.")] = (
        "text"
    )
    log_level: Annotated[LogLevel, Setting("The lowest level of the lines in these logs.")] = "info"
    access_log: Annotated[
        float,
        Setting("Share of requests that the access log contains; 1 is all, 0 is no access log.", least=0, most=1),
    ] = 0.0
    slow_query_ms: Annotated[
        float | None,
        Setting(
            "The slow-query log contains queries that took longer than this.",
            least=0,
            most=MOST_SLOW_QUERY_MS,
            default="no such log",
        ),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Setting(
            "Where spans are sent, by OTLP over HTTP, e.g. http://localhost:4318. It needs the extra otel.",
            metavar="URL",
            default="no spans",
            read=read_endpoint,
        ),
    ] = None
    trace_share: Annotated[
        float,
        Setting(
            "Share of the requests without a traceparent that are traced. Others follow their sampled flag.",
            least=0,
            most=1,
        ),
    ] = TRACE_SHARE


class ServerSettings(TelemetrySettings, frozen=True, kw_only=True):
    """The settings of a server. Its process has an argument for each field, with the field's name."""

    host: Annotated[str, Setting("The address of the query port.")] = "127.0.0.1"
    management_host: Annotated[str, Setting("The address of the management port.")] = "127.0.0.1"
    allowed_host: Annotated[
        tuple[str, ...],
        Setting(
            "A further name that the management port accepts in Host, e.g. a proxy's. May be repeated.", read=read_host
        ),
    ] = ()
    insecure: Annotated[
        bool,
        Setting("Let other machines reach the management port without TLS.", option="insecure"),
    ] = False
    open_metrics: Annotated[bool, Setting("Answer /metrics without a token.", option="open-metrics")] = False
    api_keys: Annotated[bool, Setting("Answer predict and observe only with a key.", option="api-keys")] = False
    allowed_origin: Annotated[
        tuple[str, ...],
        Setting(
            "An origin whose web pages may read answers of the query port, e.g. https://shop.example, or * for all. "
            "May be repeated.",
            read=read_origin,
        ),
    ] = ()
    tls_cert: Annotated[
        Path | None,
        Setting(
            "The certificate of both ports, in PEM, followed by the certificates that signed it. It turns TLS on.",
            metavar="FILE",
            default="no TLS",
        ),
    ] = None
    tls_key: Annotated[
        Path | None, Setting("The private key of --tls-cert, in PEM, not encrypted.", metavar="FILE")
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        Setting(
            "Clients of the query port must show a certificate that one of these, in PEM, has signed.",
            metavar="FILE",
            default="no certificate needed",
        ),
    ] = None
    # Of all ports, 0 is any free one.
    query_port: Annotated[int, Setting("The port for queries.", least=0, most=65535)] = 1337
    grpc_port: Annotated[
        int | Literal["off"] | None,
        Setting(
            "The port for queries by gRPC, or off. It needs the extra grpc.",
            metavar="PORT",
            default="1339 where the extra is installed, else off",
            read=read_grpc_port,
        ),
    ] = None
    management_port: Annotated[int, Setting("The port for management.", least=0, most=65535)] = 1338
    workers: Annotated[int, Setting("How many processes answer queries.", least=1, most=MAX_WORKERS)] = 1
    workers_per_node: Annotated[
        int,
        Setting(
            "How many processes answer queries on each node of the Ray cluster, instead of this machine. It needs "
            "--manager ray and a --store in Redis.",
            least=0,
            most=MAX_WORKERS,
            default="0: they run on this machine",
        ),
    ] = 0
    cache_bytes: Annotated[
        int,
        size("Bound of each worker's cache, e.g. 512m.", least=0, most=1 << 50, option="cache-size", default="64m"),
    ] = 64 * 1024 * 1024
    max_body_bytes: Annotated[
        int,
        size(
            "Bound of a request's body, e.g. 16m; applications whose inputs can need more accept more.",
            least=LEAST_MAX_BODY_BYTES,
            most=MOST_MAX_BODY_BYTES,
            option="max-body-size",
            default="8m",
        ),
    ] = MAX_BODY_BYTES
    max_output_bytes: Annotated[
        int,
        size(
            "The largest output of a model, e.g. 128m: the bytes of an array's elements, or of another output's JSON.",
            least=LEAST_MAX_OUTPUT_BYTES,
            most=MOST_MAX_OUTPUT_BYTES,
            option="max-output-size",
            default="32m",
        ),
    ] = MAX_OUTPUT_BYTES
    store: Annotated[
        str | None,
        Setting(
            "Where learned state is kept: sqlite:PATH, redis://HOST:PORT/DB, or file:PATH of a file with that text.",
            environment=STORE_VARIABLE,
            default="a file in the home, or the Redis of --registry",
        ),
    ] = None
    registry: Annotated[
        str | None,
        Setting(
            "The registry of a cluster of servers, of which one leads and others stand by: redis://HOST:PORT/DB, or "
            "file:PATH of a file with that text.",
            environment=REGISTRY_VARIABLE,
            default="a file in the home",
            read=read_registry,
        ),
    ] = None
    max_contexts: Annotated[
        int,
        Setting(
            "How many contexts of each application are kept; those without feedback for longest go first.",
            least=1,
        ),
    ] = MAX_CONTEXTS
    feedback_queries: Annotated[
        int,
        Setting("How many queries each worker keeps for feedback by query_id; the oldest go first.", least=1),
    ] = FEEDBACK_QUERIES
    remember_in_store: Annotated[
        bool,
        Setting(
            "Also keep answered queries in a --store in Redis, so that feedback by query_id finds them there once "
            "their worker has ended.",
            option="remember-in-store",
        ),
    ] = False
    keep_versions: Annotated[
        int,
        Setting("How many versions of each model are kept while they do not run; the oldest are removed.", least=1),
    ] = KEEP_VERSIONS
    keep_previous: Annotated[
        int,
        Setting(
            "How many replicas a model's previous version keeps, so that a rollback begins with these; 0 for none.",
            least=0,
        ),
    ] = KEEP_PREVIOUS
    decision_log_bytes: Annotated[
        int,
        size(
            "Bound of the decision log, e.g. 10g; the oldest records are removed.",
            least=LEAST_LOG_BYTES,
            most=1 << 50,
            option="decision-log-size",
            default="1g",
        ),
    ] = DEFAULT_LOG_BYTES
    run_as: Annotated[
        str | None,
        Setting(
            "The user that models and builds of their packages run as; only if the server runs as root.",
            metavar="USER[:GROUP]",
            default="the server's",
        ),
    ] = None
    start_method: Annotated[
        StartMethod,
        Setting(
            "With forkserver, models of one environment on this machine share the memory of its libraries; with spawn, "
            "each is a process that shares nothing."
        ),
    ] = "spawn"
    idle_after_s: Annotated[
        float,
        Setting(
            "Seconds without a query after which a model with replicas from 0, e.g. 0..4, falls asleep.",
            least=1,
            most=30 * 24 * 3600,
            option="idle-after",
        ),
    ] = 600.0
    # A balancer that leaves a server for one application takes all its others from their users, too.
    ready_when: Annotated[
        ReadyWhen,
        Setting(
            "Which applications must be able to answer before health checks call the server ready; "
            "/health/ready?application=NAME asks for a single application."
        ),
    ] = "any"
    drain_delay_s: Annotated[
        float,
        Setting(
            "Seconds for which a server that is told to stop still answers, and says that it is not ready.",
            least=0,
            most=3600,
            option="drain-delay",
        ),
    ] = 0.0
    manager: Annotated[
        ManagerName,
        Setting("The manager of deployments that name none.", environment="CLIPPER_MANAGER"),
    ] = "local"
    docker_base_image: Annotated[
        str,
        Setting(
            "The image that images of models are built on: it has Python, numpy and all else that they need.",
            environment="CLIPPER_DOCKER_BASE_IMAGE",
            default="python:X.Y-slim with the version of this Python",
        ),
        # Pickled models need the Python that they were made with, which is most likely this one.
    ] = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    docker_network: Annotated[
        str,
        Setting("The network of containers and builds in Docker.", environment="CLIPPER_DOCKER_NETWORK"),
    ] = "bridge"
    docker_transport: Annotated[
        Transport,
        Setting(
            "How containers in Docker are reached; use tcp if they cannot share a folder with the server.",
            environment="CLIPPER_DOCKER_TRANSPORT",
        ),
    ] = "unix"
    ray_address: Annotated[
        str,
        Setting(
            "The Ray cluster that models are deployed to with --manager ray: auto is that of this machine.",
            environment="CLIPPER_RAY_ADDRESS",
            metavar="auto|HOST:PORT",
        ),
    ] = "auto"
    ray_ports: Annotated[
        str,
        Setting(
            "The ports that containers on Ray's nodes listen on.",
            environment="CLIPPER_RAY_PORTS",
            metavar="FIRST-LAST",
            read=checked_ports,
        ),
    ] = "21000-21999"
    ray_python: Annotated[
        Path | None,
        Setting(
            "The interpreter, with Clipper and Ray in the versions of the cluster, that connects to it.",
            environment="CLIPPER_RAY_PYTHON",
            metavar="PATH",
            default="the server's own",
        ),
    ] = None

    @property
    def tls(self) -> TlsPaths | None:
        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsPaths(self.tls_cert, self.tls_key, self.tls_client_ca)


class Wrong(NamedTuple):
    """The options that contradict each other, and the rest of a sentence about them."""

    options: str
    why: str


def why_not_together(now: ServerSettings) -> Wrong | None:
    """Return why a server cannot run with these settings, each of which is valid by itself; None if it can."""
    if (now.tls_cert is None) != (now.tls_key is None):
        return Wrong("--tls-cert, --tls-key", "give both options; they may name one file that contains both")
    if now.tls_client_ca is not None and now.tls_cert is None:
        return Wrong("--tls-client-ca", "needs --tls-cert and --tls-key: only a server with TLS asks for certificates")
    if not (now.tls or now.insecure or is_loopback(now.management_host)):
        return Wrong(
            "--management-host",
            "other machines can reach this address, and the network can read the traffic, including tokens: "
            "give --tls-cert and --tls-key, put a proxy with TLS before 127.0.0.1, or give --insecure",
        )
    if now.manager == "ray" and now.run_as is not None:
        why = "on Ray, models run as the user of each node's Ray: give another manager, or no --run-as"
        return Wrong("--manager", why)
    for option, extra, is_lacking in (
        ("--grpc-port", "grpc", isinstance(now.grpc_port, int) and not has_grpc()),
        ("--otlp-endpoint", "otel", now.otlp_endpoint is not None and not has_otel()),
        ("--manager", "docker", now.manager == "docker" and not has_docker()),
        ("--manager", "ray", now.manager == "ray" and not (has_ray() or now.ray_python is not None)),
    ):
        if is_lacking:
            return Wrong(option, f"needs the extra {extra}: pip install 'clipper-serving[{extra}]'")
    return None
