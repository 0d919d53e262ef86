"""Load on an application of one model: from clients that wait for their answers, and from clients that do not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.harness import wrk
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.data import fashion_mnist

T = TypeVar("T")

# Pictures that queries are made of: so many that none is asked twice within an SLO.
OFFERED_INPUTS = 4000


def serve(
    bench: Bench, application: str, model: str, script: Path, connections: int, seconds: int, bodies: Path | None = None
) -> Mapping[str, float]:
    """Load it from wrk's connections, which wait: outputs a second, without defaults; latencies; mean batch."""
    load, counted = _counted(
        bench,
        application,
        model,
        lambda: wrk.run(bench.server.url(application), script, connections=connections, seconds=seconds, bodies=bodies),
    )
    return {
        "outputs_per_s": round(load.requests_per_s * (1 - counted["default_share"]), 1),
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        **counted,
    }


def offer(
    bench: Bench, application: str, model: str, inputs: Path, per_s: float, seconds: float
) -> Mapping[str, float]:
    """Offer it so many queries a second, which do not wait: outputs within the SLO a second; latencies of all answers
    from when queries were due; mean batch; ``lag_ms``, by how much the sender was late at p99.
    """
    load, counted = _counted(
        bench, application, model, lambda: bench.server.load(application, per_s, seconds, "--inputs", str(inputs))
    )
    latency_ms, lag_ms = load.latency_ms, load.sender.lag_ms
    return {
        "outputs_per_s": round(load.goodput_per_s, 1),
        "p50_ms": round(latency_ms.p50, 2) if latency_ms else 0.0,
        "p99_ms": round(latency_ms.p99, 2) if latency_ms else 0.0,
        "lag_ms": round(lag_ms.p99, 2) if lag_ms else 0.0,
        **counted,
    }


def best(rounds: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the round in which most was answered: what makes another one slower is the machine."""
    return max(rounds, key=lambda found: found["outputs_per_s"])


def _counted(bench: Bench, application: str, model: str, load: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Have a load run; return what it returns, the share of defaults and the mean batch."""
    before = bench.server.metrics()
    found = load()
    after = bench.server.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    queries = grown("clipper_queries_total", application=application)
    batches = grown("clipper_batch_size_count", model=model)
    return found, {
        "default_share": round(grown("clipper_defaults_total", application=application) / max(queries, 1), 4),
        "mean_batch": round(grown("clipper_batch_size_sum", model=model) / max(batches, 1), 1),
    }


def write_inputs(path: Path) -> Path:
    """Write pictures for ``offer``, a body in each line."""
    lines = encode_inputs(fashion_mnist().test.inputs[:OFFERED_INPUTS])
    path.write_bytes(b"".join(b'{"input":%b}\n' % line for line in lines))
    return path
