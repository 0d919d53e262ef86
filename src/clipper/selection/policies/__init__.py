"""Selection policies. They decide; they do no I/O, and their randomness is an argument."""
