"""Who calls the management API in the present task.

It is a context variable, so that the operations need no argument for what only the event log reads. Only they read it,
and pass it on to the catalog: what a call has set in motion may run in its task and is nevertheless not its caller's.
"""

from contextvars import ContextVar

from clipper.values.types import CLIPPER, Caller

CALLER: ContextVar[Caller] = ContextVar("caller", default=CLIPPER)
