"""The prediction cache. Decides; does no I/O."""
