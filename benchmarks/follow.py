"""``python -m benchmarks.follow``: an alias in a real MLflow registry moves while 500 queries a second come.

It moves to a version that is as good, then to one whose answers are wrong, then to one that fails. Every answer gets
feedback. The table says what users noticed of each move: queries without an answer, and wrong answers, until the
version was admitted or stopped. The benchmark fails if the good move costs any query, or a bad one over 50.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.servers import ClipperServer, clipper, clipper_command, free_port, listens, wait_until
from clipper.client import AsyncClipper, Clipper
from clipper.errors import ClipperError

ROOT = Path(__file__).parents[1]
NAME = "signs"
# The promise of ramps and guardrails for a version that is worse.
MOST_ERRORS = 50
# A container of MLflow's needs an environment, which takes minutes the first time.
WITHIN_S = 600.0
# Run with the packages of requirements/stores.txt: registers the versions, or moves the alias.
REGISTRY = """
import sys
import mlflow, mlflow.sklearn
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

client = mlflow.MlflowClient()
if sys.argv[1] == "register":
    inputs = np.random.default_rng(0).normal(size=(2000, 8))
    right = (inputs[:, 0] > 0).astype(int)
    as_it_is = LogisticRegression().fit(inputs, right)
    fails = make_pipeline(FunctionTransformer(), LogisticRegression()).fit(inputs, right)
    fails.steps[0][1].func = np.linalg.inv  # of a batch, which is no square matrix
    as_good, wrong = LogisticRegression(C=10).fit(inputs, right), LogisticRegression().fit(inputs, 1 - right)
    for model in (as_it_is, as_good, wrong, fails):
        signature = mlflow.models.infer_signature(inputs[:2], right[:2])
        with mlflow.start_run():
            options = {"signature": signature, "serialization_format": "cloudpickle"}
            mlflow.sklearn.log_model(model, name="model", registered_model_name="signs", **options)
client.set_registered_model_alias("signs", "champion", sys.argv[2])
"""


class Users:
    """Ask so often a second, whether or not there are answers, and tell which answer was right.

    Attributes:
        counts: ``asked``, ``right`` and ``wrong`` answers, ``default`` for a default, and errors by their codes.
        last: the output of the last answer.
    """

    def __init__(self, home: Path, rate_per_s: float) -> None:
        self._home, self._rate_per_s = home, rate_per_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> "Users":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    async def _run(self) -> None:
        rows = np.random.default_rng(1).normal(size=(100_000, 8))
        rows[:, 0] += np.sign(rows[:, 0])  # so that a good model is never wrong
        tasks: set[asyncio.Task[None]] = set()
        async with await AsyncClipper.connect(home=self._home) as asking:
            began_s, asked = time.monotonic(), 0
            while not self._is_over.is_set():
                while asked < (time.monotonic() - began_s) * self._rate_per_s:
                    task = asyncio.create_task(self._ask(asking, rows[asked % len(rows)]))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    asked += 1
                await asyncio.sleep(0.002)
            await asyncio.gather(*tasks)

    async def _ask(self, asking: AsyncClipper, row: "np.ndarray[Any, Any]") -> None:
        self.counts["asked"] += 1
        right = int(row[0] > 0)
        try:
            answer = await asking.predict(NAME, row)
            outcome = "default" if answer.default else "right" if answer.output == right else "wrong"
            self.counts[outcome] += 1
            await asking.observe(NAME, query_id=answer.query_id, label=right)
        except ClipperError as error:
            self.counts[error.code] += 1


@contextmanager
def mlflow_server(python: Path, folder: Path) -> Iterator[str]:
    port = free_port()
    argv = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen([*argv, *places], stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: listens(port), "MLflow's server", WITHIN_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def following(server: ClipperServer, packages: Path, url: str, folder: Path) -> Iterator[None]:
    command = [clipper_command(), "deploy", NAME, f"models:/{NAME}@champion", "--follow", "--every", "1"]
    variables = {"MLFLOW_TRACKING_URI": url, "PYTHONPATH": str(packages), "CLIPPER_CACHE": str(folder / "cache")}
    with (folder / "follow.log").open("wb") as log:
        process = subprocess.Popen(command, env={**server.environment, **variables}, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="queries a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of queries before each move")
    given = parser.parse_args()
    made = subprocess.run(
        ["sh", "scripts/environment.sh", "stores", "requirements/stores.txt"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        check=True,
        capture_output=True,
        text=True,
    )
    python = Path(made.stdout.strip()) / "bin" / "python"
    (packages,) = Path(made.stdout.strip()).glob("lib/python*/site-packages")
    with (
        tempfile.TemporaryDirectory(prefix="clipper-follow-bench-") as name,
        mlflow_server(python, Path(name)) as url,
        clipper() as server,
        Clipper.connect(home=server.home) as asking,
    ):

        def registry(*arguments: str) -> None:
            environment = {**os.environ, "MLFLOW_TRACKING_URI": url}
            command = [str(python), "-c", REGISTRY, *arguments]
            subprocess.run(command, env=environment, cwd=name, check=True, capture_output=True)

        registry("register", "1")
        with following(server, packages, url, Path(name)):
            wait_until(lambda: any(each.current == "1" for each in asking.models()), "version 1", WITHIN_S)
            asking.create_application(NAME, model=NAME, policy="exp3", slo_ms=100)
            with Users(server.home, given.rate) as users:
                return measure(asking, registry, users, given.seconds)


def measure(asking: Clipper, registry: Callable[..., None], users: Users, seconds: float) -> int:
    print(f"{'move':<26}{'queries':>9}{'right':>9}{'wrong':>7}{'no answer':>11}{'seconds':>9}  outcome")
    missed = 0
    moves = (("2", "1 -> 2, as good"), ("3", "2 -> 3, wrong answers"), ("4", "2 -> 4, fails"))
    for version, move in moves:
        time.sleep(seconds)
        before, began_s = users.counts.copy(), time.monotonic()
        registry("move", version)

        def outcome(version: str = version) -> str:
            found = {each.version: each for each in asking.model(NAME).versions}.get(version)
            if found is None or found.state == "starting":
                return ""
            if found.state == "failed":
                return f"stopped: before it was asked: {found.last_error}"[:110]
            if found.stopped is not None:
                return f"stopped: {found.stopped}"[:110]
            is_tried = any(each.version == version for each in asking.application(NAME).newcomers)
            return "" if is_tried or not found.current else "admitted"

        wait_until(lambda: bool(outcome()), f"version {version}", WITHIN_S)
        took_s, told = time.monotonic() - began_s, outcome()
        time.sleep(1.0)  # the last answers of it
        got = users.counts - before
        asked, right, wrong = got.pop("asked"), got.pop("right"), got.pop("wrong", 0)
        lost = sum(got.values())
        print(f"{move:<26}{asked:>9}{right:>9}{wrong:>7}{lost:>11}{took_s:>9.1f}  {told} {dict(got) or ''}", flush=True)
        is_good = version == "2"
        missed += lost > 0 if is_good else wrong + lost > MOST_ERRORS
        missed += told.startswith("stopped") is is_good
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
