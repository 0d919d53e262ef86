"""Section 4.2: feedback is joined with predictions through the cache, and so comes in faster."""

from collections.abc import Sequence
from statistics import median

from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.training import CLASSIFIERS, trained

# The paper has a forest, two linear SVMs and a logistic regression.
MODELS = ("forest", "logistic", "discriminant", "tree")
CACHES = ("cached", "uncached")
ROUNDS = 5
INPUTS_A_ROUND = 1_000
CONNECTIONS = 32
SLO_MS = 2_000
AT_LEAST = 1.6


def measure(bench: Bench) -> Numbers:
    """In turns: predict 1,000 images, then observe each by its input."""
    data = fashion_mnist()
    files = {name: trained(CLASSIFIERS[name](), data.train) for name in MODELS}
    bench.deploy({f"cached-{name}": path for name, path in files.items()})
    bench.deploy({f"uncached-{name}": path for name, path in files.items()}, "--no-cache")
    for kind in CACHES:
        bench.create(kind, [f"{kind}-{name}" for name in MODELS], slo_ms=SLO_MS, policy="exp4")
    inputs, labels = encode_inputs(data.test.inputs), data.test.labels.tolist()
    per_s: dict[str, list[float]] = {kind: [] for kind in CACHES}
    for number in range(ROUNDS):
        rows = range(number * INPUTS_A_ROUND, (number + 1) * INPUTS_A_ROUND)
        for kind in CACHES:
            _post(bench, f"/{kind}/predict", [b'{"input":%b}' % inputs[row] for row in rows])
            feedback = [b'{"input":%b,"label":%d}' % (inputs[row], labels[row]) for row in rows]
            per_s[kind].append(len(rows) / _post(bench, f"/{kind}/observe", feedback))
    ratios = [ours / theirs for ours, theirs in zip(per_s["cached"], per_s["uncached"])]
    return {
        "models": MODELS,
        "connections": CONNECTIONS,
        "observations_per_s": {kind: [round(rate, 1) for rate in rates] for kind, rates in per_s.items()},
        "ratio": round(median(ratios), 3),
    }


def _post(bench: Bench, path: str, bodies: Sequence[bytes]) -> float:
    """Return how many seconds it took."""

    async def send(connection: Connection, body: bytes) -> None:
        await connection.post(path, body)

    return for_each(bench.address, CONNECTIONS, bodies, send)


def judge(numbers: Numbers) -> Verdict:
    cached, uncached = (median(numbers["observations_per_s"][kind]) for kind in CACHES)
    text = f"{numbers['ratio']:.2f} × with the cache: {cached:,.0f} against {uncached:,.0f} observations/s"
    return Verdict(text, numbers["ratio"] >= AT_LEAST)


FIGURE = Figure("feedback_cache", "section 4.2: feedback through the cache", measure, judge, is_timed=True)
