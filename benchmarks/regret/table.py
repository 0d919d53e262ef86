"""The results as the tables of docs/regret.md."""

from collections.abc import Sequence

from benchmarks.regret.families import NEVER, Result
from benchmarks.regret.features import FEATURE_STREAMS
from benchmarks.regret.results import BLIND, BY_FEATURES, Results, ratio
from benchmarks.regret.streams import STREAMS


def table(results: Results) -> str:
    """A row for each policy as it is by default, and for the best setting of each candidate of its family."""
    lines = _head(tuple(STREAMS))
    for policy, found in results.items():
        if policy not in (BLIND, *BY_FEATURES):
            lines += _family(results, policy, found)
    return _text(lines)


def table_by_features(results: Results) -> str:
    """The same of policies that go by features; and of others, which do not see them, as they are by default."""
    lines = _head(tuple(FEATURE_STREAMS))
    for policy in BY_FEATURES:
        lines += _family(results, policy, results[policy])
    lines += [_row(f"`{result.name}`, without features", result, "") for result in results[BLIND]]
    return _text(lines)


def _head(streams: Sequence[str]) -> list[list[str]]:
    head = ["policy", "setting", *streams, "sum", "beside the best"]
    return [head, ["---"] * len(head)]


def _family(results: Results, policy: str, found: Sequence[Result]) -> list[list[str]]:
    ours, *others = found
    return [
        _row(f"**`{policy}`**", ours, f"{ratio(results, policy):.2f}"),
        *(_row(result.name, result, "") for result in others),
    ]


def _row(name: str, result: Result, beside: str) -> list[str]:
    setting = ", ".join(
        f"{key.replace('_', '-')} {'never' if value == NEVER[0] else f'{value:g}'}"
        for key, value in result.setting.items()
    )
    by_stream = [f"{sum(by_size.values()):,.0f}" for by_size in result.regret.values()]
    return [name, setting, *by_stream, f"{result.sum:,.0f} ± {2 * result.standard_error:,.0f}", beside]


def _text(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
