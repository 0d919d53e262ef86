"""Turns the JSON of an input into its row: for a worker's queries, and for the supervisor's samples."""
