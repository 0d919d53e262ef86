"""Closed-loop load from wrk on an application, and what it was answered."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks import wrk
from benchmarks.paper.bench import Bench


def serve(
    bench: Bench, application: str, model: str, script: Path, connections: int, seconds: int
) -> Mapping[str, float]:
    """Load an application of one model: outputs of the model a second, without defaults; latencies; mean batch."""
    before = bench.server.metrics()
    load = wrk.run(bench.server.url(application), script, connections=connections, seconds=seconds)
    after = bench.server.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    queries = grown("clipper_queries_total", application=application)
    defaults = grown("clipper_defaults_total", application=application)
    batches = grown("clipper_batch_size_count", model=model)
    share = defaults / queries if queries else 0.0
    return {
        "outputs_per_s": round(load.requests_per_s * (1 - share), 1),
        "default_share": round(share, 4),
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "mean_batch": round(grown("clipper_batch_size_sum", model=model) / batches, 1) if batches else 0.0,
    }
