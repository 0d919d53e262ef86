"""One of several supervisors of a cluster leads; the others stand by."""
