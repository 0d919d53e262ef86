"""Clipper's processes: started with a record, found again, bounded, watched, and ended with all that they forked."""
