"""Which supervisor may act for a cluster: decided here, without I/O."""
