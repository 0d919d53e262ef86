"""What happened on a server: series of values, and events."""
