"""Feedback: what it is on, and the queries that wait for it. Decides; does no I/O."""
