"""The results as the tables of docs/regret.md."""

from benchmarks.regret.families import NEVER
from benchmarks.regret.results import Results, ratio


def table(results: Results) -> str:
    """A row for each policy as it is by default, and for the best setting of each candidate of its family."""
    streams = list(next(iter(results.values()))[0].regret)
    head = ["policy", "setting", *streams, "sum", "beside the best"]
    lines = [head, ["---"] * len(head)]
    for policy, found in results.items():
        for number, result in enumerate(found):
            setting = ", ".join(
                f"{name.replace('_', '-')} {'never' if value == NEVER[0] else f'{value:g}'}"
                for name, value in result.setting.items()
            )
            by_stream = [f"{sum(result.regret[stream].values()):,.0f}" for stream in streams]
            name = f"**`{policy}`**" if not number else result.name
            beside = f"{ratio(results, policy):.2f}" if not number else ""
            lines.append([name, setting, *by_stream, f"{result.sum:,.0f} ± {2 * result.standard_error:,.0f}", beside])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
