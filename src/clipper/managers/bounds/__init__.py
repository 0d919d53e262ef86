"""What of a machine each container gets, and when it has taken more: no clock, no process, only values."""
