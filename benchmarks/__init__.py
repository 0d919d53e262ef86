"""Clipper's benchmarks: each row of the table a floor, measured against the yardstick in the same run."""
