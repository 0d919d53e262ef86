"""``make demo``: Clipper in a minute, on real digits."""
