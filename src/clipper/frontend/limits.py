"""The query port's bounds. What is over one gets an answer that says so, and hurts nobody else."""

# nginx and Node allow 8 to 16 KB of headers; nothing that Clipper reads is in them.
MAX_HEAD_BYTES = 16 * 1024
# An application's requests, unless the operator sets another: a batch of a hundred pictures in base64 is about that.
MAX_BODY_BYTES = 8 * 1024 * 1024
# Where the type of an application's inputs needs more: a 3x1024x1024 image as JSON numbers is about 60 MB.
MAX_TYPED_BODY_BYTES = 64 * 1024 * 1024
# A float64 in JSON takes up to 25 characters, and there may be whitespace and brackets around it.
BODY_BYTES_PER_NUMBER = 32
# What requests hold of a worker's memory: bodies that arrive or have not been read yet, feedback that has not been
# taken, and answers that clients have not. A quarter of a small machine, and many of the largest bodies.
MAX_HELD_BYTES = 256 * 1024 * 1024
# A request that waits holds so much besides its body.
HELD_BYTES_PER_REQUEST = 4 * 1024
# A piece of feedback that has been read takes so much besides its text until it is learned from.
HELD_BYTES_PER_FEEDBACK = 512
# Pieces of feedback that are being read or learned from before further lists are: some seconds' work of the store.
MAX_UNLEARNED = 20_000
# Bodies in any form, of which reading the worst takes a millisecond: longer ones are read between others' events.
DIRECT_BODY_BYTES = 16 * 1024
# How long work on requests that take long may hold the loop, between its other events.
SLICE_S = 0.002
# The answer to a batch, which is put together in one piece.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Smaller answers are written without a look at the memory that others hold: a system's own buffers are as large.
LARGE_ANSWER_BYTES = 64 * 1024
# A client that has not taken anything of its answer for so long may be cut off where memory is short.
SLOW_SWEEPS = 2
# After a body of this size the heap is looked through for pages to give back; smaller ones are soon made use of again.
LARGE_BODY_BYTES = 4 * 1024 * 1024
# Each costs a file descriptor and about 2 KB.
MAX_CONNECTIONS = 10_000
# Of those by TLS each takes 40 KB of OpenSSL's.
MAX_TLS_CONNECTIONS = 5_000
# A body in chunks of a byte is work of a hundred times its size: so many pieces of bodies are taken at once.
MAX_CHUNKS = 4096
# Connections over the bound that are being told so; beyond these no more are accepted until some have gone.
MAX_REFUSED_AT_ONCE = 64
# That there are too many is logged once in so long.
WARNING_SWEEPS = 60
# Connections that wait to be accepted.
BACKLOG = 1024
# Where there is hardly room for more connections, idle ones make room sooner.
CROWDED_SHARE = 0.9
CROWDED_IDLE_TIMEOUT_SWEEPS = 5
# Of all connections, those that have not yet done TLS's handshake: who opens them and says nothing takes no others'
# place.
HANDSHAKES_SHARE = 0.25
MIN_HANDSHAKES = 16
# Requests on one connection that wait for answers; beyond it reading stops until some have gone out.
MAX_PIPELINED = 64
# What is read at once may hold thousands of requests; so much of it is parsed before the bound is looked at again.
PARSED_BYTES = 16 * 1024
# What a connection may have sent while its last request waits to be taken in; beyond it, it is not read meanwhile.
READ_AHEAD_BYTES = 64 * 1024
# Heads recognised without parsing. A client sends one or a few; one that varies its heads only fills it up.
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_HEAD_BYTES = 2048

# How often connections are looked at, which is also the unit of the time-outs below.
SWEEP_S = 1.0
# From a request's first byte to its last, and for a client to take its answer.
REQUEST_TIMEOUT_SWEEPS = 30
# Longer than the 60 s for which common proxies keep idle connections, so that they close first.
IDLE_TIMEOUT_SWEEPS = 75
# After a refusal what the client still sends is read and dropped, so that a reset does not overtake the answer.
LINGER_SWEEPS = 2
# Draining, a quiet connection may have a request under way: that long it is still read and answered.
DRAIN_GRACE_S = 0.5
