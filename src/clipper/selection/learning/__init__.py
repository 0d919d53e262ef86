"""What feedback teaches: losses, and sums of them that forget. It decides; it does no I/O."""
