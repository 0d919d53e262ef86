"""What a row tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.harness.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measured row.

    Attributes:
        value: what the floor is about, as it is shown.
        passed: whether the floor is met; None for a row that only tells.
        numbers: everything that was measured, with units in the names.
    """

    value: str
    passed: bool | None
    numbers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    what: str
    floor: str
    measure: Callable[[Workbench], Outcome]
