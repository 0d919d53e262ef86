"""Feedback: what it is on, how it is scored, and the queries that wait for it. It decides and does no I/O."""
