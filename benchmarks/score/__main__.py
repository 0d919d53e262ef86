"""``python -m benchmarks.score``: how fast files are scored, and what queries notice of it.

The first table has rows a second of ``clipper score`` on a running server, with its journal and its output, over those
of a loop that reads the same file in chunks and calls the model's own ``predict``. Both take turns; the ratio is the
median of the rounds' ratios. The second has the p99 of queries at half of the load that the model can answer, without
and beside a job that never ends meanwhile.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from benchmarks.harness.servers import ClipperServer, clipper, clipper_command

CHUNK_ROWS = 4096
SLO_MS = 100


def make_models(folder: Path) -> dict[str, int]:
    """Train models by the number of their columns."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    columns = {}
    for name, model, width in (
        ("forest30", RandomForestClassifier(100, random_state=0), 30),
        ("linear30", LogisticRegression(), 30),
        ("forest784", RandomForestClassifier(100, random_state=0), 784),
        ("linear784", LogisticRegression(), 784),
    ):
        inputs = random.normal(size=(4000, width))
        joblib.dump(model.fit(inputs, inputs[:, :10].sum(axis=1) > 0), folder / f"{name}.joblib")
        columns[name] = width
    return columns


def make_files(folder: Path, width: int, rows: int) -> list[Path]:
    numbers = np.random.default_rng(1).normal(size=(rows, width)).round(4)
    table = pa.table({f"f{index}": numbers[:, index] for index in range(width)})
    pq.write_table(table, folder / f"{width}.parquet")
    pc.write_csv(table, folder / f"{width}.csv")
    return [folder / f"{width}.parquet", folder / f"{width}.csv"]


def batches(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches(CHUNK_ROWS)
    else:
        with pc.open_csv(path) as file:
            yield from file


def own_rows_per_s(model: Any, path: Path) -> float:
    """Read a file in chunks and predict: the loop that people write."""
    began_s, rows = time.perf_counter(), 0
    for batch in batches(path):
        rows += len(model.predict(batch.to_pandas().to_numpy()))
    return rows / (time.perf_counter() - began_s)


def score_rows_per_s(server: ClipperServer, name: str, path: Path, rows: int) -> float:
    """Score a file. The time is from the command's start to its end, without what it takes to import."""
    output = path.with_name(f"out-{name}{path.suffix}")
    output.unlink(missing_ok=True)
    began_s = time.perf_counter()
    server.run("score", name, str(path), "-o", str(output), within_s=900)
    took_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    server.run("app", "list")
    return rows / max(took_s - (time.perf_counter() - began_s), 1e-9)


def beside(server: ClipperServer, name: str, path: Path, rate_per_s: float, seconds: float) -> tuple[float, float, int]:
    """Return the p99 in ms of queries without a job and beside one, and the rows that the job did meanwhile."""

    def p99(run: Any) -> float:
        return float(run.latency_ms.p99)

    alone = p99(server.load(name, rate_per_s, seconds))
    output = path.with_name("beside" + path.suffix)
    arguments = [clipper_command(), "score", name, *[str(path)] * 20, "-o", str(output)]
    nowhere = subprocess.DEVNULL
    job = subprocess.Popen(arguments, env=server.environment, stdout=nowhere, stderr=nowhere, start_new_session=True)
    try:
        journal = output.with_name(output.name + ".journal")
        while job.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < 5):
            time.sleep(0.1)
        before = len(output.with_name(output.name + ".partial").read_bytes().splitlines())
        with_job = p99(server.load(name, rate_per_s, seconds))
        after = len(output.with_name(output.name + ".partial").read_bytes().splitlines())
    finally:
        job.kill()
        job.wait()
        for ending in (".partial", ".journal"):
            output.with_name(output.name + ending).unlink(missing_ok=True)
    return alone, with_job, after - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=600_000, help="rows of 30 columns; of 784 an eighth")
    parser.add_argument("--models", nargs="*", help="some of the models")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load; 0 leaves it out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipper-score-bench-") as name, clipper() as server:
        folder = Path(name)
        widths = make_models(folder)
        print(f"{'model':<12}{'file':<10}{'own rows/s':>12}{'score rows/s':>14}{'ratio':>8}   of {given.rounds} rounds")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for model in given.models or widths:
            rows = given.rows if widths[model] == 30 else given.rows // 8
            server.run("deploy", model, str(folder / f"{model}.joblib"), "--replicas", str(given.replicas))
            server.run("app", "create", model, "--model", model, "--slo-ms", str(SLO_MS))
            loaded = joblib.load(folder / f"{model}.joblib")
            files = make_files(folder, widths[model], rows)
            own = 0.0
            for path in files:
                rounds = [
                    (own_rows_per_s(loaded, path), score_rows_per_s(server, model, path, rows))
                    for _ in range(given.rounds)
                ]
                own, ours = (statistics.median(each) for each in zip(*rounds))
                ratio = statistics.median(score / loop for loop, score in rounds)
                print(f"{model:<12}{path.suffix[1:]:<10}{own:>12,.0f}{ours:>14,.0f}{ratio:>8.2f}", flush=True)
            if given.seconds:
                rate = float(min(500, own / 2))
                alone, with_job, done = beside(server, model, files[-1], rate, given.seconds)
                print(
                    f"{model:<12}{rate:.0f} queries/s: p99 {alone:.2f} ms, beside a job {with_job:.2f} ms "
                    f"({with_job / alone:.2f}), which did {done / given.seconds:,.0f} rows/s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
