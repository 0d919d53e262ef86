"""``python -m benchmarks.batching.nearness``: what it costs to prefer replicas of the worker's own node.

Of four replicas, one or two are near. Each cell is run twice: as if all were near, and with the preference. What is
gained is that few queries cross the network; what is lost would be queries that are not answered in time.
"""

from dataclasses import dataclass
from statistics import fmean

from benchmarks.batching.profiles import Profile, profiles
from benchmarks.batching.scheduled import Scheduled
from benchmarks.batching.simulation import goodput

NAMES = ("3ms 4 replicas", "3ms 4 replicas, bursts", "40ms 4 replicas", "40ms 4 replicas, bursts")
LOADS = (0.1, 0.2, 0.5, 0.7, 0.9, 1.1, 1.5)
FAR = (2, 3)
SEEDS = (7, 8)
QUERIES = 2000


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of queries: in time without and with the preference, and sent to other nodes with it."""

    even: float
    near_first: float
    far_share: float


def compare(profile: Profile, load: float, far: int, seed: int, queries: int = QUERIES) -> Compared:
    even = goodput(Scheduled(profile), profile, load, seed, queries)
    rule = Scheduled(profile, far=far)
    near_first = goodput(rule, profile, load, seed, queries)
    return Compared(even, near_first, sum(rule.sent[-far:]) / max(1, sum(rule.sent)))


def main() -> None:
    print("of 4 replicas far, load of all four, share in time without and with the preference, share sent far")
    for name in NAMES:
        for far in FAR:
            for load in LOADS:
                found = [compare(profiles()[name], load, far, seed) for seed in SEEDS]
                even, near, share = (
                    fmean(getattr(each, field) for each in found) for field in ("even", "near_first", "far_share")
                )
                print(f"{name:26} {far} {load:4} {even:.4f} {near:.4f} {near - even:+.4f} {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
