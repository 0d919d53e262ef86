"""Decides which containers to start and stop, and when."""
