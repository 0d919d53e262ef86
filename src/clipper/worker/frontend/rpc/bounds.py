"""Bounds of the gRPC port. ``frontend/limits.py`` has those of memory, time and bodies that it shares with REST."""

from clipper.base.turn_budget import VISIT_S

# The bytes that a message may have beyond the bound of a REST request's body: names, shapes and parameters.
MESSAGE_HEAD_BYTES = 64 * 1024
# Connections of a worker, each 12 KB while it is idle. Idle connections give way to further ones. A client needs a
# single connection for many calls.
MAX_CONNECTIONS = 2000
# Open calls of a worker, each a few KB. If there are more, a call gives way whose message is on its way: for longer
# than the second bound, or on a connection that has more than its share of the calls. The third bound is the number of
# calls that are looked at, the oldest first.
MAX_CALLS, SLOW_MESSAGE_SWEEPS, LOOKED_AT = 4096, 2, 64
# Open calls that are streams, which clients may keep open for as long as they like.
MAX_STREAMING_CALLS = 1024
# Open calls of a connection; further calls wait in the client. HTTP/2 recommends at least 100.
MAX_STREAMS = 256
# The bytes that a client may send before it gets a WINDOW_UPDATE. A stream's next messages wait within this window, and
# a large message should not wait for a round trip too often.
STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES = 1024 * 1024, 4 * 1024 * 1024
# The memory that a stream's waiting message takes in addition to its data: a MiB of messages of two bytes took 24 MiB.
# And the memory that all messages behind the first may take; infer messages in a stream's window never take as much.
MESSAGE_HELD_BYTES, MAX_STREAM_HELD_BYTES = 160, 8 * 1024 * 1024
# The requests of a stream of infer requests that wait for their answers: as many as a model's queue takes, each some KB
# beside its data. A stream's client waits at the smaller number, two of the largest batches by default. Only a window
# full of requests under 75 bytes, sent before that, reaches the whole number; further requests are refused.
MAX_STREAM_REQUESTS, BUSY_STREAM_REQUESTS = 16_384, 2048
# If memory is short, a stream with this many waiting bytes gives way like a message that does not end.
LARGE_STREAM_BYTES = STREAM_WINDOW_BYTES // 4
# libnghttp2 ends a connection at a larger head. A call whose head is over MAX_HEAD_BYTES is refused alone.
MAX_FATAL_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
# SETTINGS and PING frames that wait to be acknowledged. A piece of input has at most 240 PING frames.
MAX_ACKNOWLEDGEMENTS = 1000
# Calls that a client may reset at once, and then in each second: the bound against "rapid reset". Clients reset calls
# whose deadline is over, so an honest client may reset some hundred.
RESETS_AT_ONCE, RESETS_PER_SECOND = 1000, 200
# Frames that carry nothing (PING, SETTINGS, empty DATA, small WINDOW_UPDATE): in a second, and in addition for each
# call and each message. Clients that estimate the bandwidth send a PING for some answers; some clients send a
# WINDOW_UPDATE for each.
MAX_IDLE_FRAMES, IDLE_FRAMES_PER_CALL = 1000, 4
# A smaller WINDOW_UPDATE carries nothing: it would let a client read its answers byte by byte.
SMALL_WINDOW_UPDATE_BYTES = 1024
# Output is written in pieces of this size.
WRITE_PIECE_BYTES = 256 * 1024
# Input is handled in pieces of at most the first size, and of such a size that a piece takes as long as a visit: 16 KB
# of small calls take 3 ms, and 16 KB of refused messages 20 ms. Calls of 150 KB cost 15 % more in pieces of 4 KB.
READ_PIECE_BYTES, FIRST_PIECE_BYTES, LEAST_PIECE_BYTES = 16 * 1024, 2 * 1024, 256


def next_piece_bytes(piece_bytes: int, handled_bytes: int, took_s: float) -> int:
    """Return the size of a connection's next piece of input, after ``handled_bytes`` took ``took_s``.

    It is at most twice the size before (``piece_bytes``), since the next piece may cost more.
    """
    fitting_bytes = int(handled_bytes * VISIT_S / took_s) if took_s > 0 else READ_PIECE_BYTES
    return max(min(fitting_bytes, 2 * piece_bytes, READ_PIECE_BYTES), LEAST_PIECE_BYTES)


# A stream's next messages wait while its client has not taken this many bytes of answers: as many as it may send.
MAX_STREAM_UNSENT_BYTES = STREAM_WINDOW_BYTES
# The time that a connection has for its first frame.
PREFACE_SWEEPS = 10
# A client that has open calls and sends nothing for this long is sent a PING, which it has to answer in time.
KEEPALIVE_SWEEPS, KEEPALIVE_TIMEOUT_SWEEPS = 60, 20
# An error's text is a header. All clients take headers of 8 KB. A character may take the second number of bytes.
MAX_DETAILS_BYTES, MAX_ENCODED_BYTES = 4000, 12
