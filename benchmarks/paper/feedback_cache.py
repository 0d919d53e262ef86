"""Section 4.2: feedback is joined with predictions through the cache, and so comes in faster."""

from collections.abc import Sequence
from statistics import median

from benchmarks.harness.pages import table
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict, shows_gain
from benchmarks.paper.training import CLASSIFIERS, trained

# The paper has a forest, two linear SVMs and a logistic regression.
MODELS = ("forest", "logistic", "discriminant", "tree")
CACHES = ("cached", "uncached")
ROUNDS = 5
INPUTS_A_ROUND = 1_000
CONNECTIONS = 32
SLO_MS = 2_000
PAPERS_GAIN = 1.63


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
    return Verdict(
        (
            Claim(
                f"the cache lets in {PAPERS_GAIN} times as much feedback: 6,708 and 10,929 updates/s",
                f"{numbers['ratio']:.2f} times",
                shows_gain(numbers["ratio"], PAPERS_GAIN),
                "the cheaper the models are, the less the cache saves",
            ),
        )
    )


def describe(numbers: Numbers) -> str:
    rates = (median(numbers["observations_per_s"][kind]) for kind in CACHES)
    return table(["observations/s with the cache", "without"], [[f"{rate:,.0f}" for rate in rates]])


FIGURE = Figure("feedback_cache", "section 4.2: feedback through the cache", measure, judge, describe, is_timed=True)
