"""The query port's bounds. A request over a bound gets an error that says so, and harms no other request."""

from clipper.settings import server

# nginx and Node allow 8 to 16 KB of headers; Clipper reads no long header.
MAX_HEAD_BYTES = 16 * 1024
# Bound of a request's body, unless the server or the application's input type has another.
MAX_BODY_BYTES = server.MAX_BODY_BYTES
# Bound of the body for an input type that needs more.
MAX_TYPED_BODY_BYTES = server.MOST_MAX_BODY_BYTES
# A float64 in JSON takes up to 25 characters, plus whitespace and brackets.
BODY_BYTES_PER_NUMBER = 32
# Memory that requests hold in a worker: bodies that arrive or wait to be read, feedback that is not learned yet, and
# answers that clients have not read. It is a quarter of a small machine, and room for many of the largest bodies.
MAX_HELD_BYTES = 256 * 1024 * 1024
# Feedback that waits unread may hold half of that: so there is room for other requests, however much feedback comes.
MAX_UNREAD_BYTES = MAX_HELD_BYTES // 2
# A waiting request holds this much in addition to its body.
HELD_BYTES_PER_REQUEST = 4 * 1024
# A row of a request with several takes this much while it waits for its output: its query, and its work in a queue.
HELD_BYTES_PER_ROW = 1024
# A piece of feedback that was read takes this much in addition to its text, until it is learned.
HELD_BYTES_PER_FEEDBACK = 512
# While this many pieces of feedback are being read or learned, further pieces wait, unread: two seconds of work for
# most stores, and twice what a worker learns from at once. Pieces of lists over 32 KiB and all others count separately.
MAX_UNLEARNED = 8_000
# A body up to this size is read at once, which takes a millisecond at worst; a longer body is read in steps.
DIRECT_BODY_BYTES = 16 * 1024
# Long bodies that are read at the same time, each of another application, and long answers that are made at the same
# time: each may take several times its memory.
MAX_LARGE_JOBS = 4
# The memory that those of an application may hold: a quarter of all, so that there is room for others' requests.
MAX_LARGE_BYTES = MAX_HELD_BYTES // 4
# Bound of an answer: most of that memory, and enough for the largest output by default as JSON, which is 6.25 times as
# long as float32 that are written as float64.
MAX_ANSWER_BYTES = MAX_HELD_BYTES // 8 * 7
# A long answer is written in pieces of at most this size.
WRITE_BYTES = 256 * 1024
# A smaller answer is written without checking the memory that others hold: the kernel's own buffers are as large.
LARGE_ANSWER_BYTES = 64 * 1024
# A client that has read less than this much of its answer for this long may be disconnected if memory is short.
SLOW_SWEEPS, LEAST_TAKEN_BYTES = 2, 32 * 1024
# After a body of this size, free pages of the heap are returned to the system; smaller pieces are soon reused.
LARGE_BODY_BYTES = 4 * 1024 * 1024
# Each connection takes a file descriptor and about 2 KB.
MAX_CONNECTIONS = 10_000
# A TLS connection also takes 40 KB in OpenSSL.
MAX_TLS_CONNECTIONS = 5_000
# Connections over the bound that are let in, since others give way soon, or are being answered with an error; beyond
# these, no more are accepted for a while.
MAX_OVER_BOUND = 64
# The warning about too many connections is logged at most this often.
WARNING_SWEEPS = 60
# The share of a worker's file descriptors that clients do not get: for the control channel, replicas, the store, other
# workers and logs. Without a free descriptor it could not answer its supervisor, which would consider it hung.
OWN_DESCRIPTORS_SHARE, MIN_OWN_DESCRIPTORS, MIN_CONNECTIONS = 0.25, 64, 8
# Connections that wait in the kernel to be accepted.
BACKLOG = 1024
# When all connections are taken, a connection that was answered may give way to a new one after this silence. A client
# that asks more often may be about to ask again, and its request would meet a closed connection.
GIVES_WAY_AFTER_S = 1.0
# Then a request that is still arriving gives way, too, after this time and a time for each byte of its body: more than
# most slow lines need, and the slowest request goes first. So a new client waits for this long at most, even if others
# hold all connections with half a request and send a byte now and then; to hold 10,000 they would have to send 300 MB
# a second.
ARRIVES_WITHIN_S, ARRIVES_BYTES_PER_S = 0.5, 32 * 1024
# A connection over the bound is let in if another gives way within this time, and otherwise refused. Connections of
# clients that ask at least twice a second never give way.
ROOM_WITHIN_S = ARRIVES_WITHIN_S
# Connections that have not finished their TLS handshake may take this share of the bound: a client that connects and
# stays silent must not keep others out.
HANDSHAKES_SHARE = 0.25
MIN_HANDSHAKES = 16
# Requests on one connection that wait for answers. Beyond this, the connection is not read until some are answered.
MAX_PIPELINED = 64
# A read may return thousands of requests. A connection's requests are handled for this long before others have their
# turn: about ten small requests. The clock is read after each request, and after this much of a head or a body in
# chunks, whose bytes cost the most: 4 KB of chunks of one byte take half a millisecond.
VISIT_S, PARSED_BYTES = 0.000_2, 4 * 1024
# A connection may send this much while its last request waits to be taken in; beyond this, it is not read.
READ_AHEAD_BYTES = 64 * 1024
# Heads that are recognised without parsing. A client sends a few heads; a client that varies them fills this up.
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_HEAD_BYTES = 2048

# Time between two sweeps over all connections, the unit of the timeouts below.
SWEEP_S = 1.0
# Timeout of a request from its first byte to its last, and of a client that does not read its answer.
REQUEST_TIMEOUT_SWEEPS = 30
# Longer than the 60 s for which common proxies keep idle connections, so that the proxy closes first.
IDLE_TIMEOUT_SWEEPS = 75
# After a refusal, further input is read and discarded for this long, so that a reset does not overtake the answer.
LINGER_SWEEPS = 2
# While the worker drains, an idle connection may have a request on its way: it is read for this much longer.
DRAIN_GRACE_S = 0.5


def over_bound(what: str, most_bytes: int) -> str:
    """Return the cause of ``too_large`` of what a client sends, e.g. ``body``."""
    if server.LEAST_MAX_BODY_BYTES <= most_bytes < MAX_TYPED_BODY_BYTES:
        advice = "send fewer inputs at once, or have the server's --max-body-size raised"
    else:  # no option changes it
        advice = "send less at once"
    return f"the {what} is over {most_bytes} bytes: {advice}"


def most_connections(descriptors: int) -> int:
    """Return how many client connections there is room for with this many file descriptors."""
    own = max(int(descriptors * OWN_DESCRIPTORS_SHARE), MIN_OWN_DESCRIPTORS)
    return min(max(descriptors - own - MAX_OVER_BOUND, MIN_CONNECTIONS), MAX_CONNECTIONS)
