"""The query port's bounds. What is over one gets an answer that says so, and hurts nobody else."""

# nginx and Node allow 8 to 16 KB of headers; nothing that Clipper reads is in them.
MAX_HEAD_BYTES = 16 * 1024
# A 3x1024x1024 image as JSON numbers is about 60 MB.
MAX_BODY_BYTES = 64 * 1024 * 1024
# Of all bodies that are still arriving: so that many slow large ones cannot take the machine's memory.
MAX_BUFFERED_BYTES = 1024 * 1024 * 1024
# After a body of this size the heap is looked through for pages to give back; smaller ones are soon made use of again.
LARGE_BODY_BYTES = 8 * 1024 * 1024
# Each costs a file descriptor and about 2 KB.
MAX_CONNECTIONS = 10_000
# Requests on one connection that wait for answers; beyond it reading stops until some have gone out.
MAX_PIPELINED = 64
# What is read at once may hold thousands of requests; so much of it is parsed before the bound is looked at again.
PARSED_BYTES = 16 * 1024
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
