"""Whether what the demo showed has held."""

from dataclasses import dataclass

from examples.demo.story import FOREST, SLO_MS, SVM
from examples.demo.traffic import Traffic

# Both models reach these with room to spare, wherever the split falls; a mix-up of rows or versions does not.
FOREST_ACCURACY, SVM_ACCURACY = 0.90, 0.83
# An answer that came too late for its query is a default; a machine that is busy otherwise may cause a few.
DEFAULT_SHARE = 0.01
ENOUGH_QUERIES = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    held: bool
    text: str


def judge(traffic: Traffic, lost: int) -> list[Finding]:
    whole = traffic.whole
    share = whole.defaults / max(1, whole.answered)
    return [
        Finding(whole.answered >= ENOUGH_QUERIES, f"{whole.answered:,} queries were sent"),
        Finding(lost == 0, f"{lost} of them lost"),
        Finding(whole.refused == 0, f"{whole.refused:,} answered with an error"),
        Finding(share < DEFAULT_SHARE, f"{share:.2%} answered with the default"),
        *(
            Finding(
                traffic.stretches[name].accuracy >= floor, f"{name}: accuracy {traffic.stretches[name].accuracy:.1%}"
            )
            for name, floor in ((FOREST, FOREST_ACCURACY), (SVM, SVM_ACCURACY))
        ),
        *(within_slo(traffic, name) for name in traffic.stretches),
    ]


def within_slo(traffic: Traffic, stretch: str) -> Finding:
    p99_ms = traffic.stretches[stretch].percentile_ms(99)
    return Finding(p99_ms <= SLO_MS, f"{stretch}: p99 {p99_ms:.1f} ms of {SLO_MS} ms")
