"""What is stable: each interface against what the last release promised (docs/stability.md)."""
