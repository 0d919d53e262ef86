"""Selection policies. They only decide, and do no I/O; randomness is an argument.

A user's own policy imports what it needs from ``clipper.policies``.
"""
