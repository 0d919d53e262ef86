"""Bounds of the gRPC port. Those of memory, time and bodies that it shares with REST are in ``frontend/limits.py``."""

from clipper.base.turn_budget import VISIT_S

# What a message may hold beside what the body of a REST request may have: names, shapes and parameters.
MESSAGE_HEAD_BYTES = 64 * 1024
# Connections of a worker, each 12 KB while it is idle; for further ones idle ones give way. A client needs one for many
# calls.
MAX_CONNECTIONS = 2000
# Open calls of a worker, each a few KB. If there are more, one gives way whose message is on its way: for longer than
# the other time, or on a connection that has more than its share of them. So many are looked at, the oldest first.
MAX_CALLS, SLOW_MESSAGE_SWEEPS, LOOKED_AT = 4096, 2, 64
# Those of them that are streams, which clients may keep open for as long as they like.
MAX_STREAMING_CALLS = 1024
# Open calls of one connection; further calls wait in the client. HTTP/2 recommends at least 100.
MAX_STREAMS = 256
# What a client may send before it gets a WINDOW_UPDATE: a stream's next messages wait within this much, and a large
# message should not wait for a round trip too often.
STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES = 1024 * 1024, 4 * 1024 * 1024
# A stream's message that waits takes this much in addition to its data: a MiB of messages of two bytes took 24. All
# behind the first one may take so much, which no infer messages in a stream's window do.
MESSAGE_HELD_BYTES, MAX_STREAM_HELD_BYTES = 160, 8 * 1024 * 1024
# Requests of one stream of infer requests that wait for their answers, each some KB beside its data. A stream's client
# waits while there are half as many; only a window full of requests of under 500 bytes gets to the whole number, and
# further ones are refused. It is eight batches of 512, so no model waits for its clients.
MAX_STREAM_REQUESTS, BUSY_STREAM_REQUESTS = 4096, 2048
# Where memory is short, a stream of which so much waits gives way like a message that does not end.
LARGE_STREAM_BYTES = STREAM_WINDOW_BYTES // 4
# libnghttp2 ends a connection at a larger head. A call whose head is over MAX_HEAD_BYTES is refused alone.
MAX_FATAL_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
# SETTINGS and PING frames that wait to be acknowledged. One piece of input has at most 240 PING frames.
MAX_ACKNOWLEDGEMENTS = 1000
# Calls that one client may reset at once, and later in a second: the bound against "rapid reset". Clients reset calls
# whose deadline is over, so an honest client may reset some hundred.
RESETS_AT_ONCE, RESETS_PER_SECOND = 1000, 200
# Frames that carry nothing (PING, SETTINGS, empty DATA, small WINDOW_UPDATE), in a second, and for each call and each
# message. Clients that estimate the bandwidth send a PING for some answers, and some a WINDOW_UPDATE for each.
MAX_IDLE_FRAMES, IDLE_FRAMES_PER_CALL = 1000, 4
# A WINDOW_UPDATE below this is one of those: it would let a client read its answers byte by byte.
SMALL_WINDOW_UPDATE_BYTES = 1024
# Output is written in pieces of this size.
WRITE_PIECE_BYTES = 256 * 1024
# Input is handled in pieces of at most this size, and of such a size that one takes as long as a visit: 16 KB of small
# calls take 3 ms, and of messages that are refused 20 ms. Calls of 150 KB cost 15 % more in pieces of 4 KB.
READ_PIECE_BYTES, FIRST_PIECE_BYTES, LEAST_PIECE_BYTES = 16 * 1024, 2 * 1024, 256


def next_piece_bytes(piece_bytes: int, handled_bytes: int, took_s: float) -> int:
    """Return how much of a connection's input to handle next, after so much of it took so long.

    At most twice as much as before (``piece_bytes``), since the next may cost more.
    """
    fitting_bytes = int(handled_bytes * VISIT_S / took_s) if took_s > 0 else READ_PIECE_BYTES
    return max(min(fitting_bytes, 2 * piece_bytes, READ_PIECE_BYTES), LEAST_PIECE_BYTES)


# A stream's next messages wait while its client has not taken this much of its answers: as much as it may send itself.
MAX_STREAM_UNSENT_BYTES = STREAM_WINDOW_BYTES
# From when a connection is accepted until its first frame.
PREFACE_SWEEPS = 10
# A client that has open calls and sends nothing for this long is sent a PING, which it has to answer in time.
KEEPALIVE_SWEEPS, KEEPALIVE_TIMEOUT_SWEEPS = 60, 20
# An error's text is a header, of which clients take 8 KB at least. A character of it may take this much.
MAX_DETAILS_BYTES, MAX_ENCODED_BYTES = 4000, 12
