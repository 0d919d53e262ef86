"""What the rows share: one Clipper with the models they ask for, the yardstick beside it, and rounds of load."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from types import TracebackType

from benchmarks.harness import servers, training, wrk

HERE = Path(__file__).parents[1]
FOUR = HERE / "yardstick" / "unique4.lua"
PIXELS = HERE / "yardstick" / "unique784.lua"
EQUAL_PIXELS = HERE / "yardstick" / "post784.lua"

SLO_MS = 20

# Alternating rounds: the machine changes speed within minutes, and both sides of a ratio have to meet the same.
ROUNDS = 3
ROUND_S = 4
# Beside the yardstick more and shorter ones: the same code was seen at 32 and 48 thousand/s within ten seconds.
TURNS = 6
TURN_S = 2
# A model's first seconds show imports, growing batch limits and cold caches.
WARM_UP_S = 3


@dataclass(frozen=True, slots=True)
class Served:
    """A round of load on an application of Clipper.

    Attributes:
        outputs_per_s: answers that carried the model's output, not the default.
        default_share: answered with the default, of all that were answered.
    """

    load: wrk.Load
    outputs_per_s: float
    default_share: float


class Workbench:
    """Starts what is asked for, once, and ends all of it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._applications: dict[str, str] = {}
        self._sums: set[str] = set()

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="clipper-bench-")))

    @cached_property
    def server(self) -> servers.ClipperServer:
        return self._stack.enter_context(servers.clipper())

    @cached_property
    def yardstick_url(self) -> str:
        return self._stack.enter_context(servers.yardstick())

    @cached_property
    def echo_url(self) -> str:
        return self._stack.enter_context(servers.echo())

    def model_file(self, name: str) -> Path:
        path = self.folder / f"{name}.joblib"
        return path if path.exists() else training.train(name, self.folder)

    def application(self, model: str, batching: str = "goodput", delay_ms: float = 0) -> str:
        """Deploy a model with these settings, if it is not yet, and return the application that answers from it."""
        name = f"{model}-{batching}-{delay_ms:g}".replace("_", "-")
        if name not in self._applications:
            options = ["--batching", batching, "--batch-delay-ms", f"{delay_ms:g}"]
            self.server.deploy(name, *self._what(model), *options, slo_ms=SLO_MS)
            self._applications[name] = model
        return name

    def _what(self, model: str) -> list[str]:
        if model in training.ESTIMATORS:
            return [str(self.model_file(model))]
        if model in OWN_PREDICT:
            return ["own_predict:OwnPredict", "--data", str(self.model_file(OWN_PREDICT[model]))]
        return [FUNCTIONS[model], "--input-type", "doubles"]

    def sums(self, policy: str, models: int, *, parameter: str | None = None, features: int | None = None) -> str:
        """Deploy so many models that are sums, if they are not yet; return the application that selects among them.

        ``parameter`` is one of the policy's, as ``NAME=VALUE``; ``features`` how many come with each query.
        """
        application = f"{policy}-over-{models}" + (f"-{parameter.replace('=', '-')}" if parameter else "")
        if application not in self._applications:
            names = [f"sum-{number}" for number in range(models)]
            for name in names:
                self._deploy_sum(name)
            options = [option for name in names for option in ("--model", name)]
            options += ["--policy", policy, "--slo-ms", str(SLO_MS), "--default", "-1"]
            options += ["--policy-parameter", parameter] if parameter else []
            options += ["--features", str(features)] if features else []
            self.server.run("app", "create", application, *options)
            self._applications[application] = "sum"
        return application

    def _deploy_sum(self, name: str) -> None:
        if name not in self._sums:
            self.server.run("deploy", name, FUNCTIONS["sum"], "--input-type", "doubles", folder=HERE / "models")
            self._sums.add(name)

    def serve(
        self, application: str, script: Path, *, connections: int, seconds: int = ROUND_S, bodies: Path | None = None
    ) -> Served:
        """Load one application and count what its answers carried."""
        before = self.server.metrics()
        url = self.server.url(application)
        load = wrk.run(url, script, connections=connections, seconds=seconds, bodies=bodies)
        after = self.server.metrics()

        def grown(name: str) -> float:
            return after.total(name, application=application) - before.total(name, application=application)

        queries, defaults = grown("clipper_queries_total"), grown("clipper_defaults_total")
        share = defaults / queries if queries else 0.0
        return Served(load, load.requests_per_s * (1 - share), share)

    def compare(self, *sides: Callable[[], float], rounds: int = ROUNDS) -> list[list[float]]:
        """Measure the sides in turn, so many times; return each side's numbers."""
        measured = [[side() for side in sides] for _ in range(rounds)]
        return [list(column) for column in zip(*measured)]


FUNCTIONS = {"sum": "total:total", "stub": "stub:stub"}
# Estimators that answer through scikit-learn's own ``predict``.
OWN_PREDICT = {"random_forest_own_predict": "random_forest"}


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median over the rounds of one side's number divided by the other's."""
    return median(a / b for a, b in zip(over, under))
