"""From what should exist and what is, to what to do now: no I/O, no clock, no task. The shell is in ``supervisor``."""
