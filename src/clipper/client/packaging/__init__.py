"""Turns a user's model (a file, an object or the name of some code) into an artifact that a container can load."""
