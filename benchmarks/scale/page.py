"""The table of what was measured, and its place in docs/scale.md."""

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.scale.measured import Measured

BEGIN, END = "<!-- the last run of make scale -->\n", "<!-- its end -->\n"

ROWS: tuple[tuple[str, Callable[[Measured], str]], ...] = (
    ("replicas, workers", lambda one: f"{one.replicas:,}, {one.workers}"),
    ("until all workers serve a new application: median, longest", lambda one: _times(one.create_s)),
    ("until all workers serve a new version of five replicas", lambda one: _times(one.deploy_s)),
    ("processor time of the supervisor for a new application", lambda one: _ms(one.create_cpu_s)),
    ("processor time of each worker for it", lambda one: _ms(one.worker_create_cpu_s)),
    ("processor time of the supervisor for a new version", lambda one: _ms(one.deploy_cpu_s)),
    ("nothing changes: the supervisor's share of a processor", lambda one: f"{one.rest_cores:.1%}"),
    ("nothing changes: each worker's share of a processor", lambda one: f"{one.worker_rest_cores:.2%}"),
    ("one deployment after another: the supervisor's share", lambda one: f"{one.busy_cores:.1%}"),
    ("memory of the supervisor", lambda one: f"{one.memory_bytes / 1e6:.0f} MB"),
)


def with_results(page: str, text: str) -> str:
    """Return the page with ``text`` in place of that of the run before.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} with {END.strip()} after it")
    return f"{before}{BEGIN}\n{text}\n\n{END}{after}"


def table(found: Sequence[Measured], query_ratios: Sequence[float]) -> str:
    """Return a table with a column for each size, and a line on queries.

    Args:
        query_ratios: of each round at the largest size, the processor time of a query over that beside no other model.
            Empty if these rounds were not run.
    """
    lines = [f"| | {' | '.join(f'beside {one.models:,} models' for one in found)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(one) for one in found)} |" for name, cell in ROWS]
    lines += [
        f"| `GET {path}`: time, processor time, size | {' | '.join(_read(one, path) for one in found)} |"
        for path in found[-1].reads
    ]
    if query_ratios:
        lines += [
            "",
            f"A query takes a worker {median(query_ratios):.3f} times as much processor time beside "
            f"{found[-1].models:,} models as beside none, in the median of {len(query_ratios)} rounds.",
        ]
    return "\n".join(lines)


def _times(seconds: tuple[float, float]) -> str:
    return f"{_ms(seconds[0])}, {_ms(seconds[1])}"


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.1f} ms" if ms < 10 else f"{ms:,.0f} ms"


def _read(one: Measured, path: str) -> str:
    wall_s, cpu_s, size = one.reads[path]
    return f"{wall_s:.2f} s, {cpu_s:.2f} s, {size / 1e6:.2f} MB"
