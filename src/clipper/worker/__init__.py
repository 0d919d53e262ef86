"""The query worker, the process that answers queries."""
