"""Starts query workers, sends them commands, takes them over and replaces them."""
