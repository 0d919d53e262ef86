"""The decision log: what was decided for each query, and what came of it. See docs/decision-log.md."""
