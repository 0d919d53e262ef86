"""What was found, kept: by policy, its own result as it is by default, then the best setting of each candidate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.harness.pages import fields
from benchmarks.regret.families import Result

# Their loss is not to be compared with that of policies that see one model's loss a query.
ASK_ALL = ("exp4", "ensemble", "stacking")
# Those that see a query's features are played on streams of their own, and beside them some that do not see them.
BY_FEATURES = ("linucb", "linear_thompson")
BLIND = "without_features"

RESULTS = Path(__file__).parent / "results.json"

Results = dict[str, list[Result]]


def read() -> Results:
    return msgspec.json.decode(RESULTS.read_bytes(), type=Results)


def write(results: Mapping[str, Sequence[Result]]) -> None:
    RESULTS.write_text(fields(results))


def ratio(results: Results, policy: str) -> float:
    """Its regret over that of its family's best single setting."""
    ours, *others = results[policy]
    return ours.sum / min(other.sum for other in others)


def best_textbook(results: Results) -> Result:
    """Of all that ask one model a query, and see no features."""
    others = ("adaptive", BLIND, *ASK_ALL, *BY_FEATURES)
    asking_one = [found for policy, found in results.items() if policy not in others]
    return min((each for found in asking_one for each in found[1:]), key=lambda result: result.sum)
