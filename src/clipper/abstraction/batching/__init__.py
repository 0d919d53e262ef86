"""Batching: who goes into which batch, and how large it may be. Decides; does no I/O."""
