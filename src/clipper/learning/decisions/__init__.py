"""The decision log: each query's decision, and the feedback on it. See docs/decision-log.md."""
