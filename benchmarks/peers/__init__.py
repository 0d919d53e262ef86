"""Other servers of models, on the same models, machine and load: ``python -m benchmarks.peers``; see README.md here."""
