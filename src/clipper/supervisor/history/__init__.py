"""A server's history: series of values, and events."""
