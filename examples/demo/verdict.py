"""Whether what the demo showed has held."""

from dataclasses import dataclass

from examples.demo.story import FOREST, SLO_MS, SVM
from examples.demo.traffic import Traffic

# Both models reach these with room to spare, wherever the split falls; a mix-up of rows or versions does not.
ACCURACIES = {FOREST: 0.88, SVM: 0.83}
# An answer that came too late for its query is a default; a machine that is busy otherwise may cause a few.
DEFAULT_SHARE = 0.01
ENOUGH_QUERIES = 2000


@dataclass(frozen=True, slots=True)
class Finding:
    """``held`` is None for what is only told."""

    held: bool | None
    text: str


def judge(traffic: Traffic, lost: int) -> list[Finding]:
    whole = traffic.whole
    share = whole.defaults / max(1, whole.answered)
    p99_ms = whole.percentile_ms(99)
    return [
        Finding(whole.answered >= ENOUGH_QUERIES, f"{whole.answered:,} queries were answered"),
        Finding(lost == 0, f"{lost} were lost"),
        Finding(whole.refused == 0, f"{whole.refused} were answered with an error"),
        Finding(share < DEFAULT_SHARE, f"{share:.2%} were answered with the default, since no model was in time"),
        Finding(p99_ms <= SLO_MS, f"p99 of all is {p99_ms:.1f} ms of {SLO_MS} ms"),
        *(told(traffic, stretch) for stretch in traffic.stretches),
    ]


def told(traffic: Traffic, stretch: str) -> Finding:
    tally = traffic.stretches[stretch]
    floor = ACCURACIES.get(stretch)
    latency = f"p50 {tally.percentile_ms(50):.1f} ms, p99 {tally.percentile_ms(99):.1f} ms"
    return Finding(
        None if floor is None else tally.accuracy >= floor,
        f"{stretch}: accuracy {tally.accuracy:.1%}, {latency}",
    )
