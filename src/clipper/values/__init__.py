"""Inputs and outputs: their types, rows from JSON, and outputs to JSON."""
