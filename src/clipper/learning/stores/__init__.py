"""Stores of learned state: durable, additive, and shared by all workers of one or several Clippers."""
