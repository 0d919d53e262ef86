"""Figure 8: the best model returns noise for a quarter of the run; policies that learn leave it and come back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.pages import table
from benchmarks.paper.bench import MODELS as CODE
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.networks import NETWORKS, network, outputs
from benchmarks.paper.simulated_failure import BREAKS_AT, RECOVERS_AT, as_papers, simulate

MODELS = tuple(NETWORKS)
BROKEN = MODELS[0]
# As they are where nothing is set.
POLICIES = ("exp3", "exp4")
SLO_MS = 2_000
# So many queries are under way at once, and feedback comes that much later.
WINDOW = 16
SAMPLED_EVERY = 100
# A model with less than an equal share is left; one with more than half is the policy's choice.
LEFT_BELOW, CHOSEN_ABOVE = 1 / len(MODELS), 0.5
LEAVES_WITHIN = 500


def measure(bench: Bench) -> Numbers:
    """Send 20,000 images to both policies and to each model alone, with feedback on each; then the same in simulation,
    many times.
    """
    data = fashion_mnist()
    with TemporaryDirectory(prefix="clipper-paper-") as folder:
        switch = Path(folder) / "returns-noise"
        _deploy(bench, Path(folder), switch)
        for name in POLICIES:
            bench.create(name, MODELS, slo_ms=SLO_MS, policy=name)
        run = Run(bench, switch, encode_inputs(data.stream.inputs), data.stream.labels.tolist())
        took_s = for_each(bench.address, WINDOW, range(len(data.stream)), run.step)
    return {
        "queries": len(data.stream),
        "queries_per_s": round(len(data.stream) / took_s, 1),
        "errors": {name: int(errors.sum()) for name, errors in run.errors.items()},
        "defaults": run.defaults,
        "sampled_every": SAMPLED_EVERY,
        "cumulative_errors": {name: cumulative(errors, SAMPLED_EVERY) for name, errors in run.errors.items()},
        "share_of_broken": run.shares,
        "simulated": simulate(outputs()),
        "simulated_as_papers": simulate(as_papers(len(data.stream))),
    }


def _deploy(bench: Bench, folder: Path, switch: Path) -> None:
    """The best model runs inside ``models/faulty.py``; the others as they are."""
    files = {name: network(name) for name in MODELS}
    inside = folder / "data"
    inside.mkdir()
    (inside / "model.joblib").write_bytes(files.pop(BROKEN).read_bytes())
    (inside / "switch").write_text(str(switch))
    bench.deploy(files)
    bench.server.run(
        "deploy", BROKEN, "faulty:Faulty", "--data", str(inside), "--input-type", "float64[784]", folder=CODE
    )
    for name in MODELS:
        bench.create(f"only-{name}", [name], slo_ms=SLO_MS)


class Run:
    """The run's queries, and what was answered.

    Attributes:
        errors: by policy and model, 1 for each query with a wrong answer or none.
        defaults: how many answers were none.
        shares: by policy, the broken model's, each time that so many queries were begun.
    """

    def __init__(self, bench: Bench, switch: Path, inputs: Sequence[bytes], labels: Sequence[int]) -> None:
        self._bench, self._switch = bench, switch
        self._inputs, self._labels = inputs, labels
        # exp4 asks all five models; what the others answer comes from the cache, so all see the same outputs.
        self._applications = {"exp4": "exp4", "exp3": "exp3", **{name: f"only-{name}" for name in MODELS}}
        self.errors = {name: np.zeros(len(labels), np.int64) for name in self._applications}
        self.shares: dict[str, list[float]] = {name: [] for name in POLICIES}
        self.defaults = 0

    async def step(self, connection: Connection, number: int) -> None:
        """One query: all applications answer it, then the policies learn the label."""
        if number == BREAKS_AT:
            self._switch.touch()
        if number == RECOVERS_AT:
            self._switch.unlink()
        if number % SAMPLED_EVERY == 0:
            self._sample()
        query = b'{"input":%b}' % self._inputs[number]
        for name, application in self._applications.items():
            answer = await connection.post(f"/{application}/predict", query)
            self._take(name, number, answer)
            if name in POLICIES:
                feedback = b'{"query_id":%d,"label":%d}' % (answer["query_id"], self._labels[number])
                await connection.post(f"/{application}/observe", feedback)

    def _take(self, name: str, number: int, answer: Mapping[str, Any]) -> None:
        self.defaults += answer["default"]
        self.errors[name][number] = answer["output"] != self._labels[number]

    def _sample(self) -> None:
        """It holds up the load for a moment, which feedback does not mind."""
        for name, shares in self.shares.items():
            models = self._bench.policy(name)["models"]
            shares.append(next(model["share"] for model in models if model["model"] == BROKEN))


def cumulative(errors: NDArray[np.int64], every: int) -> list[int]:
    """The sum of the errors up to each multiple of ``every``, from 0 on."""
    sums: list[int] = np.concatenate([[0], np.cumsum(errors)])[::every].tolist()
    return sums


def queries_until(shares: Sequence[float], start: int, every: int, reached: bool, bound: float) -> int | None:
    """How many queries after ``start`` a share is above (``reached``) or below the bound; None if it never is."""
    for number, share in enumerate(shares):
        if number * every >= start and (share > bound if reached else share < bound):
            return number * every - start
    return None


def judge(numbers: Numbers) -> Verdict:
    errors = numbers["errors"]
    best_model = min(MODELS, key=lambda name: errors[name])
    simulated, like_papers = (
        {name: each["mean"] for name, each in numbers[key]["errors"].items()}
        for key in ("simulated", "simulated_as_papers")
    )
    left = {name: _turn(numbers, name, BREAKS_AT, False, LEFT_BELOW) for name in POLICIES}
    back = {name: _turn(numbers, name, RECOVERS_AT, True, CHOSEN_ABOVE) for name in POLICIES}
    return Verdict(
        (
            Claim(
                "while the best model fails for a quarter of the run, Exp3 and Exp4 err less over all of it than each "
                "single model",
                f"errors: {' and '.join(f'`{name}` {errors[name]:,}' for name in POLICIES)}; "
                f"the best single model, {best_model}, {errors[best_model]:,}",
                all(errors[name] < errors[best_model] for name in POLICIES),
                "see the table",
            ),
            Claim(
                "both leave the model that fails, and return to it once it has recovered",
                "; ".join(f"`{name}`: {_after(left[name])}, back {_after(back[name])}" for name in POLICIES),
                all(each is not None for each in (*left.values(), *back.values())),
                "its share did not pass the bound",
            ),
        ),
        (
            Claim(
                f"both leave it within {LEAVES_WITHIN} queries",
                " and ".join(_after(each) for each in left.values()),
                all(each is not None and each <= LEAVES_WITHIN for each in left.values()),
            ),
            *(
                Claim(
                    f"they err less than the paper's own policies, in the mean of {numbers[key]['seeds']} simulated "
                    f"runs over {over}",
                    "; ".join(
                        f"`{name}` {errors[name]:,.0f} beside {errors[f'paper_{name}']:,.0f}" for name in POLICIES
                    ),
                    all(errors[name] <= errors[f"paper_{name}"] for name in POLICIES),
                )
                for key, over, errors in (
                    ("simulated", "these networks", simulated),
                    ("simulated_as_papers", "networks that err as the paper's", like_papers),
                )
            ),
        ),
    )


def _turn(numbers: Numbers, policy: str, start: int, reached: bool, bound: float) -> int | None:
    return queries_until(numbers["share_of_broken"][policy], start, numbers["sampled_every"], reached, bound)


def _after(queries: int | None) -> str:
    return "never" if queries is None else f"after {queries:,} queries"


def describe(numbers: Numbers) -> str:
    errors = numbers["errors"]
    both = [numbers[key]["errors"] for key in ("simulated", "simulated_as_papers")]
    policies = [
        [
            f"`{name}`",
            f"{errors[name]:,}",
            *(_interval(each[key]) for each in both for key in (name, f"paper_{name}")),
        ]
        for name in POLICIES
    ]
    return table(
        [
            "policy or network",
            "errors through the server",
            "simulated, Clipper's",
            "the paper's",
            "over networks that err as the paper's: Clipper's",
            "the paper's",
        ],
        [*policies, *([name, f"{errors[name]:,}", "", "", "", ""] for name in MODELS)],
    )


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:,.0f} ± {found['half_interval']:.0f}"


FIGURE = Figure("failure", "figure 8: the best model fails and recovers", measure, judge, describe)
