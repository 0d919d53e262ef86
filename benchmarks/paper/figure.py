"""What a figure is: a measurement that gives numbers, and from these a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.paper.bench import Bench

# What goes into the result file: JSON values, with units in the names.
Numbers = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line, and whether all that the figure must show was seen."""

    text: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the paper's figures. ``judge`` reads nothing but what ``measure`` returned.

    ``is_timed``: its numbers are times or rates, so that what else runs on the machine is in them. A run that takes
    longer than ``within_s`` is ended, and has failed.
    """

    name: str
    what: str
    measure: Callable[[Bench], Numbers]
    judge: Callable[[Numbers], Verdict]
    is_timed: bool = False
    within_s: float = 480.0
