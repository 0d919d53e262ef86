"""Containers in Docker."""
