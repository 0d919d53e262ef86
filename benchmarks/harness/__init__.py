"""What benchmarks share: servers, load, rounds, and the pages that take their numbers."""
