"""What a figure is: a measurement that gives numbers, and what is concluded from these."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.paper.bench import Bench

# The content of a result file: JSON values, with units in the names.
Numbers = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement, and what was measured of it.

    Attributes:
        says: the statement, with its numbers.
        here: the measured numbers.
        holds: whether these show it.
        reason: why they do not, in cases where they do not.
    """

    says: str
    here: str
    holds: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the paper says of a figure, and what Clipper promises besides.

    A statement of the paper that does not hold here is a finding. A promise that is not kept fails the run.
    """

    paper: tuple[Claim, ...] = ()
    promises: tuple[Claim, ...] = ()

    @property
    def reproduced(self) -> int:
        """How many of the paper's statements hold here."""
        return sum(claim.holds for claim in self.paper)

    @property
    def broken(self) -> list[Claim]:
        return [promise for promise in self.promises if not promise.holds]


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the paper's figures. ``judge`` and ``describe`` read nothing but what ``measure`` returned.

    Attributes:
        what: the paper's number for it, and its subject.
        describe: makes the numbers that the page shows, as Markdown.
        is_timed: its numbers are times or rates, so that what else runs on the machine is in them.
        within_s: a run that takes longer is ended, and has failed.
        prepare: builds environments, fits models and compiles programs, which take minutes the first time and are kept.
            It does not count as part of the run.
    """

    name: str
    what: str
    measure: Callable[[Bench], Numbers]
    judge: Callable[[Numbers], Verdict]
    describe: Callable[[Numbers], str]
    is_timed: bool = False
    within_s: float = 480.0
    prepare: Callable[[], object] = lambda: None


def shows_gain(measured: float, papers: float) -> bool:
    """Whether a ratio is at least half of the gain that the paper reports: models and machines differ."""
    return measured - 1 >= (papers - 1) / 2
