"""Bounds of the gRPC port. Those of memory, time and bodies that it shares with REST are in ``frontend/limits.py``."""

from clipper.frontend import limits

# What stands in a message beside what a body of REST may have.
MESSAGE_HEAD_BYTES = 64 * 1024
# Calls that have not been answered: each is a task and what grpc keeps of it, some 20 KB. The rest is told so.
MAX_CALLS = 4096
# Those of them that are streams, which may be open for as long as their clients like.
MAX_STREAMING_CALLS = 1024
# Of one connection; further calls wait in the client. HTTP/2 asks for 100 at least.
MAX_STREAMS = 256
# A client's share of what a worker's connections are: they carry many calls each.
CONNECTIONS_SHARE = 0.1
# From a connection's first byte to the end of its handshakes.
HANDSHAKE_TIMEOUT_MS = 10_000
# Longer than the 60 s of common proxies, as for REST; a client of gRPC connects again by itself.
IDLE_TIMEOUT_MS = 1000 * limits.IDLE_TIMEOUT_SWEEPS
# A peer that is gone without a word is noticed by a ping.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
# Clients may ping as often, to keep a way through networks open.
MIN_PING_INTERVAL_MS = 10_000
# An error's text is a header.
MAX_DETAILS_LENGTH = 4000
# How often the watchers of health are told that it has changed.
WATCH_EVERY_S = 1.0
# How long calls may take that are under way when a server takes the place of another.
RENEWAL_GRACE_S = 10.0
# What is left when a stop begins to give calls up.
STOP_MARGIN_S = 0.2
# Errors that a client is told when to try again after.
TO_TRY_AGAIN = frozenset({"too_many_requests", "overloaded", "no_replica", "unavailable", "store_unavailable"})


def options(max_connections: int, max_message_bytes: int) -> list[tuple[str, int]]:
    """What the server of grpc is given."""
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", max_message_bytes + MESSAGE_HEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # It counts streams that have ended and are not freed, and so refuses some of clients that keep to the bound.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_metadata_size", limits.MAX_HEAD_BYTES),
        ("grpc.absolute_max_metadata_size", limits.MAX_HEAD_BYTES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", IDLE_TIMEOUT_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]
