"""Brings workers and containers to the desired state: starts, heals and stops them, and pushes snapshots."""
