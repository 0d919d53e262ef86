"""Models that are classes of one's own."""
