"""How long a replica that has just answered many queries waits for them to ask again.

Clients that wait for answers otherwise fall into two halves, each of which pays what a batch costs whatever its size.
"""

import msgspec

from clipper.abstraction.batching.controller import Controller

# Only after batches of this many: few clients at a time never wait.
GATHER_AFTER = 16
# Only where a batch costs so much beside its rows.
LEAST_FIXED_S = 0.002
# For at most so many times that cost.
MAX_TIMES = 2.0
# Until the first is back, for this part of it, and only for a tenth more of answers a second: it may not come at all.
FIRST_SHARE = 0.5
FIRST_GAIN = 1.1
# The loop's timers are no finer.
LEAST_WAIT_S = 0.0002


class Gathered(msgspec.Struct, frozen=True, gc=False):
    """How far those that a replica answered have come back.

    Attributes:
        left: queries that were waiting already when the replica answered.
        answered: queries that it answered.
        waiting: queries that wait now.
        elapsed_s: since the first came back or, while none has, since they were answered.
    """

    left: int
    answered: int
    waiting: int
    elapsed_s: float


def may_gather(controller: Controller, answered: int) -> bool:
    """Whether a replica that has answered so many queries may wait at all: not for a few, nor for cheap ones."""
    return answered >= GATHER_AFTER and controller.predict_s(0) >= LEAST_FIXED_S


def gather_s(controller: Controller, gathered: Gathered) -> float:
    """For how long from where ``elapsed_s`` began the replica waits; no longer than that if it should go on.

    It goes on as long as that answers more queries a second: with a batch of n taking ``t(n)``, and the rest coming as
    fast as those that have, if ``all / (rest + t(all)) >= waiting / t(waiting)``. So it ends by itself once they come
    slowly, as they do where clients think, or where they are not the same ones.
    """
    everyone = min(gathered.left + gathered.answered, controller.limit)
    if gathered.waiting >= everyone or not may_gather(controller, gathered.answered):
        return 0.0
    fixed_s = controller.predict_s(0)
    back = gathered.waiting - gathered.left
    rest_s = (everyone - gathered.waiting) * gathered.elapsed_s / back if back > 0 else fixed_s * FIRST_SHARE
    alone_s, together_s = controller.predict_s(gathered.waiting), controller.predict_s(everyone)
    gain = everyone * alone_s / (gathered.waiting * (rest_s + together_s))
    if back <= 0:
        return rest_s if gain >= FIRST_GAIN else 0.0
    return min(fixed_s * MAX_TIMES, gathered.elapsed_s + max(rest_s, LEAST_WAIT_S)) if gain >= 1 else 0.0
