"""The mathematics of learning from feedback: losses, and sums that forget. It decides and does no I/O."""
