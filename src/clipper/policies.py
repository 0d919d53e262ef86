"""The interface of selection policies: a user's own policy imports from here what it needs.

``from clipper.policies import Choice, Policy``
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
