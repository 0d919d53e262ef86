"""What the supervisor and workers tell each other: what to serve by, what was counted, and the channel."""
