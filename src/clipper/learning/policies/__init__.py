"""Selection policies. They only decide, and do no I/O; randomness is an argument.

A user's own policy imports what it needs from ``clipper.policies``.
"""

from clipper.learning.policies.policy import (
    Choice,
    Combined,
    Increments,
    JudgedQuery,
    Outlook,
    Policy,
    QueryView,
    Step,
    Totals,
)

__all__ = ["Choice", "Combined", "Increments", "JudgedQuery", "Outlook", "Policy", "QueryView", "Step", "Totals"]
