"""Brings a server to the state of a file: packs models, asks the server, and runs the steps of ``manifest.plan``."""
