"""How many examples a property is tried with: all, or the share of them that ``make test`` takes."""

from hypothesis import settings

# The profile of all examples tries this many where a test gives no number.
ALL = 100
# The first ones that hypothesis draws are the simplest.
LEAST = 10


def share_of(count: int) -> int:
    """Return ``count``, or the same share of it as the profile in force takes of ``ALL``, at least ``LEAST``."""
    return min(count, max(LEAST, count * settings().max_examples // ALL))
