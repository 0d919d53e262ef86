"""Turns the JSON of one input into its row: for a worker's queries, and for the supervisor's samples."""
