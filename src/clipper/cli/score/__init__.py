"""Predictions for the rows of files: ``clipper score``."""
