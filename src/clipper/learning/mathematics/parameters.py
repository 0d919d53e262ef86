"""Checks of parameters that users set. Each message has the parameter, its range and the value."""

import math
from collections.abc import Sequence

from clipper.errors import InvalidArgument

# The largest parameter: the sum of as many as there may be is still a double.
MAX_NUMBER = 1e300


def check_number(name: str, value: object, low: float, high: float = MAX_NUMBER, *, above: bool = False) -> None:
    """Raise InvalidArgument if ``value`` is no number from ``low``, or ``above`` it, to ``high``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < math.inf:
        in_range = low < value <= high if above else low <= value <= high
        if in_range:
            return
    least = f"above {low:g}" if above else f"at least {low:g}"
    # The end that all ranges have is named only to a user who exceeds it.
    is_beyond = isinstance(value, (int, float)) and value > MAX_NUMBER
    most = "" if high == MAX_NUMBER and not is_beyond else f" and at most {high:g}"
    raise InvalidArgument(f"{name} is {value!r:.100}: expected a number {least}{most}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that ``value`` is one of ``choices``. Raises InvalidArgument if it is not."""
    if value not in choices:
        raise InvalidArgument(f"{name} is {value!r:.100}: expected one of {', '.join(choices)}")
