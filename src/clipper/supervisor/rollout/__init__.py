"""Decides what to do now, from desired and observed state: no I/O, no clock, no task. ``supervisor`` has the shell."""
