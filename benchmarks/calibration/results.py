"""How sure the answers were and how right, summed up, kept, and shown as a table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.harness.pages import fields

RESULTS = Path(__file__).parent / "results.json"
# Of one width, as is usual: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
BINS = 15
# Answers of about this confidence: if it means what it says, nine of ten are right.
ABOUT, WITHIN = 0.9, 0.05


class Answers(Struct, frozen=True):
    """Of one application; each list has one element an answer."""

    raw: list[float]
    calibrated: list[float]
    right: list[bool]


class Bin(Struct, frozen=True):
    """Some answers: how many, their mean confidence, and the share that was right."""

    answers: int
    confidence: float
    right: float


class Reliability(Struct, frozen=True):
    """
    Attributes:
        error: the expected calibration error over ``bins``.
        about: the answers of about ``ABOUT``; None if there was none.
    """

    error: float
    about: Bin | None
    bins: list[Bin]


class Result(Struct, frozen=True):
    """One application: over all answers, the share that was right; and reliability before and after calibration."""

    answers: int
    right: float
    raw: Reliability
    calibrated: Reliability


Results = Mapping[str, Result]


def read() -> Results:
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Result])


def write(results: Results) -> None:
    RESULTS.write_text(fields(results))


def result(found: Answers) -> Result:
    right = sum(found.right) / len(found.right)
    return Result(
        len(found.right), right, reliability(found.raw, found.right), reliability(found.calibrated, found.right)
    )


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> Reliability:
    sure, hits = np.array(confidences), np.array(right, float)

    def inside(chosen: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Bin:
        return Bin(int(chosen.sum()), float(sure[chosen].mean()), float(hits[chosen].mean()))

    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = [inside(places == place) for place in range(BINS) if (places == place).any()]
    error = sum(each.answers * abs(each.confidence - each.right) for each in bins) / len(hits)
    about = abs(sure - ABOUT) <= WITHIN
    return Reliability(error, inside(about) if about.any() else None, bins)


def table(results: Results) -> str:
    """The table of docs/confidence.md."""
    about = f"right, of confidence {ABOUT - WITHIN:g} to {ABOUT + WITHIN:g}"
    head = ["answers of", "right", "calibration error, raw", "calibrated", f"{about}, raw", "calibrated"]
    lines = [head, ["---"] * len(head)]
    for name, found in results.items():
        both = (found.raw, found.calibrated)
        cells = [name, f"{found.right:.1%}", *(f"{each.error:.3f}" for each in both)]
        lines.append([*cells, *(_share(each.about) for each in both)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def standard_error(found: Bin) -> float:
    """Of the share that was right."""
    return math.sqrt(found.right * (1 - found.right) / found.answers)


def _share(found: Bin | None) -> str:
    return (
        "no such answer" if found is None else f"{found.right:.0%} ± {2 * standard_error(found):.0%} of {found.answers}"
    )
