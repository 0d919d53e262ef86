"""Which processes to start and stop, and when: no clock, no process, only values."""
