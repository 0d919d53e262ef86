"""Uploaded models, unpacked into read-only folders."""
