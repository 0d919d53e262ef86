"""Batching decides which queries make up a batch, how large it is and when it is sent. It does no I/O."""
