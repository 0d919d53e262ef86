"""The messages between the supervisor and workers: snapshots, readings of what was counted, and the channel."""
