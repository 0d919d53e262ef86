"""Selection policies. They decide and do no I/O; randomness is an argument.

A user's own policy imports what it needs from here: ``from clipper.selection.policies import Choice, Policy``.
"""

from clipper.selection.policies.policy import (
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
