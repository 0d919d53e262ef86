"""Implements the operations of the management API."""
