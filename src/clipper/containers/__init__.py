"""Talking to model processes: the protocol (pure) and the link that drives it."""
