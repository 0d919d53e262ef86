"""Feedback: its join with queries, its scores, and the queries that wait for it. It decides and does no I/O."""
