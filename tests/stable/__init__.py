"""Stability: each interface against the last release's promises (docs/stability.md)."""
