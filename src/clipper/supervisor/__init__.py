"""Owns what should exist and makes it so: starts, heals and stops workers and containers, and pushes snapshots."""
