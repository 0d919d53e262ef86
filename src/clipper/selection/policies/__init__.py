"""Selection policies. They decide; they do no I/O, and their randomness is an argument.

What a user's own policy needs stands here: ``from clipper.selection.policies import Choice, Policy``.
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
