"""The event log: what happened to applications, models, workers, keys and the server, kept over restarts."""
