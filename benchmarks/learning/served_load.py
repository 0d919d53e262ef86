"""``python -m benchmarks.learning.served_load``: policies over models that can be full, through a running server.

Of two models, ``a`` takes 10 ms a row and is right in 98 %, ``b`` 0.2 ms and 80 %. Queries come by chance and wait for
nobody, and each gets its label half a second after its answer. What is counted is the share of right answers in time,
over the last two thirds of each round, beside what is possible by the models' capacities and qualities.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import servers
from benchmarks.harness.load import post
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.learning.load_cells import SETS, best_share
from benchmarks.learning.open_feedback import Clients
from benchmarks.learning.simulated_load import Model

MODELS = Path(__file__).parents[1] / "models"
SLO_MS = 100
# The numbers of an input that decide by chance which models are right about it.
CHANCES = 3
# A client that has no answer by then has lost it: longer than any answer takes.
PATIENCE_S = 5.0
JUDGED_AFTER_S = 0.5


@dataclass(slots=True)
class Counted:
    """``reasons``: of the defaults."""

    queries: int = 0
    right: int = 0
    defaults: int = 0
    errors: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Round:
    """Queries at one rate to one application."""

    def __init__(self, url: str, application: str, label_share: float, seed: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._clients = Clients(host, int(port.strip("/")), PATIENCE_S)
        self._application = application
        self._label_share = label_share
        self._random = random.Random(seed)
        self.counted = Counted()

    async def run(self, per_s: float, seconds: float) -> Counted:
        """Return what came of the last two thirds."""
        due_s = began_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while due_s < began_s + seconds:
                await asyncio.sleep(due_s - time.perf_counter())
                tasks.create_task(self._ask(is_counted=due_s >= began_s + seconds / 3))
                due_s += self._random.expovariate(per_s)
        self._clients.close()
        return self.counted

    async def _ask(self, *, is_counted: bool) -> None:
        row = [float(self._random.randint(0, 999_999)), *(self._random.random() for _ in range(CHANCES))]
        try:
            status, body = await self._clients.ask(
                post(f"/{self._application}/predict", json.dumps({"input": row}).encode())
            )
        except OSError:
            status, body = 0, b"{}"
        answer = json.loads(body)
        counted = self.counted
        counted.queries += is_counted
        if status != 200:
            counted.errors += is_counted
        elif answer["default"]:
            counted.defaults += is_counted
            counted.reasons[answer.get("default_explanation", "")] += is_counted
        else:
            counted.right += is_counted and answer["output"] == row[0]
        if "query_id" in answer and self._random.random() < self._label_share:
            await asyncio.sleep(JUDGED_AFTER_S)
            label = json.dumps({"query_id": answer["query_id"], "label": row[0]}).encode()
            try:
                await self._clients.ask(post(f"/{self._application}/observe", label))
            except OSError:
                counted.errors += is_counted


def deploy(server: servers.ClipperServer, folder: Path, models: tuple[Model, ...]) -> None:
    """Deploy models that err and take as long as those of the simulation."""
    for number, model in enumerate(models):
        told = folder / f"{model.name}.json"
        device = str(folder / model.device) if model.device else ""
        place = 1 + number % CHANCES
        told.write_text(
            json.dumps({"row_s": model.per_row_s, "quality": model.quality, "place": place, "device": device})
        )
        gpus = ["--gpus", f"GPU-{model.device}"] if model.device else []
        server.run("deploy", model.name, "erring:Erring", "--data", str(told), "--no-cache", *gpus, folder=MODELS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.served_load", description=__doc__)
    policies = ["single", "adaptive", "thompson", "exp3", "exp4", "cascade"]
    parser.add_argument("--policies", nargs="+", default=policies)
    parser.add_argument("--models", choices=list(SETS), default="two")
    parser.add_argument("--rates", nargs="+", type=float, default=[90, 200, 400])
    parser.add_argument("--seconds", type=float, default=10.0, help="of one round")
    parser.add_argument("--slower", type=int, default=1, help="all times are so many times as long, for a busy machine")
    parser.add_argument("--labels", type=float, default=1.0, help="share of the queries that get a label")
    arguments = parser.parse_args()
    end_in_order_at_sigterm()
    slower = arguments.slower
    models = tuple(replace(model, per_row_s=slower * model.per_row_s) for model in SETS[arguments.models])
    with TemporaryDirectory(prefix="clipper-served-load-") as folder:
        server = servers.ClipperServer(Path(folder) / "home")
        server.start()
        try:
            deploy(server, Path(folder), models)
            pids = [worker["pid"] for worker in server.run("status")["workers"]]
            for per_s in (rate / slower for rate in arguments.rates):
                best = best_share(per_s, tuple((m.device or m.name, m.per_row_s, m.quality, 1) for m in models))
                print(f"{per_s:g}/s, possible {best:.3f}", flush=True)
                for policy in arguments.policies:
                    name = f"{policy.replace('_', '-')}-{per_s:g}"
                    links = [part for model in models for part in ("--model", model.name)]
                    options = ["--policy", policy, "--slo-ms", str(slower * SLO_MS), "--default", "-2"]
                    server.run("app", "create", name, *links, *options)
                    before_s = sum(servers.processor_ns(pid) for pid in pids) / 1e9
                    one = Round(server.query_url, name, arguments.labels, seed=1)
                    found = asyncio.run(one.run(per_s, slower * arguments.seconds))
                    took_s = sum(servers.processor_ns(pid) for pid in pids) / 1e9 - before_s
                    share = found.right / found.queries
                    cpu_us = took_s / (per_s * slower * arguments.seconds) * 1e6
                    print(
                        f"  {policy:10} {share:.3f}  {share / best:6.1%} of possible, defaults "
                        f"{found.defaults / found.queries:.2%} {dict(found.reasons) or ''}, errors {found.errors}, "
                        f"worker {cpu_us:.0f} us a query",
                        flush=True,
                    )
                    server.run("app", "delete", name, "--yes")
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
