"""``python -m benchmarks.scale.many_models [MODELS] [OPTION…]``: what a thousand scikit-learn models take.

Deploys so many different models (200), and prints as JSON what each takes in memory and to start, and what the server
itself takes while nobody asks. Then all of them fall asleep; some are asked one after another, and a hundred at once.
Options go to ``clipper start``: ``--start-method forkserver`` lets them share memory.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from benchmarks.harness import servers
from benchmarks.rows.footprint import resident_mb
from clipper import Clipper
from clipper.base.processes.proc import start_time
from clipper.settings.replicas import ReplicaRange
from clipper.supervisor.managers.launcher import slot_name
from clipper.supervisor.managers.reconcile.plan import Slot

MODELS = 200
MAY_SLEEP = ReplicaRange(0, 1)
# More would not fit where nothing is shared: 100 MB each.
MOST_MODELS = 1500
# At once, as a program that deploys many would.
AHEAD = 8
# Of these the start is measured with nothing else starting, and these are asked.
SAMPLE = 20
# For hours: nobody falls asleep while they are deployed.
AWAKE = ("--idle-after", "86400")
QUERIES = 50
IDLE_S = 20.0
READY_WITHIN_S = 300.0
POLL_S = 0.01
# Of those that sleep, so many are asked one after another, and so many others at once.
WOKEN = 100
WAKING_SLO_S = 300.0
# Without a query for so long, a model falls asleep in the second part.
ASLEEP_AFTER_S = 2.0
ALL_ASLEEP_WITHIN_S = 900.0


@dataclass(frozen=True, slots=True)
class Start:
    """The start of one model.

    Attributes:
        deployed_s: from the call that deploys it to the version's being ready, known to all workers.
        process_s: from the start of its process to its being ready, to a hundredth of a second.
        process_cpu_s: processor time of its process by then.
    """

    deployed_s: float
    process_s: float
    process_cpu_s: float


def main(models: int, options: Sequence[str]) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="clipper-many-") as folder, servers.clipper(*options, *AWAKE) as server:
        files = list(_made(Path(folder), models))
        with Clipper.connect(server.management_url, server.home) as clipper:
            began_s = time.perf_counter()
            rest, woken = files[: models - SAMPLE], min(WOKEN, (models - SAMPLE) // 2)
            for number, file in enumerate(rest):
                clipper.deploy(file.stem, file, wait=False, replicas=MAY_SLEEP)
                if number >= AHEAD:
                    _until_ready(clipper, rest[number - AHEAD].stem)
            for file in rest[-AHEAD - 1 :]:
                _until_ready(clipper, file.stem)
            all_s = time.perf_counter() - began_s
            starts = [_start(clipper, server, file) for file in files[models - SAMPLE :]]
            idle = _idle_percent(server)
            before = _memory(clipper)
            for file in files[-SAMPLE:]:
                _ask(clipper, server, file.stem)
            asked = {file.stem for file in files[-SAMPLE:]}
            after = [mb for name, mb in _memory(clipper).items() if name in asked]
            print("they are deployed", file=sys.stderr)
            supervisor, *workers = server.process_ids()
            sizes_mb = round(resident_mb(supervisor)), [round(resident_mb(worker)) for worker in workers]
            for file in rest[: 2 * woken]:
                clipper.create_application(file.stem, model=file.stem, slo_ms=20.0, waking_slo_ms=WAKING_SLO_S * 1e3)
        os.kill(supervisor, signal.SIGKILL)
        # Their processes are taken over, and fall asleep.
        killed_s = time.perf_counter()
        server.start(*options, "--idle-after", str(ASLEEP_AFTER_S))
        with Clipper.connect(server.management_url, server.home) as clipper:
            _until_asleep(clipper)
            asleep_in_s = time.perf_counter() - killed_s
            print("they are asleep", file=sys.stderr)
            one_s = [_woken_s(clipper, file.stem) for file in rest[:woken]]
            _until_asleep(clipper)
            with ThreadPoolExecutor(woken) as threads:
                at_once_s = list(threads.map(lambda file: _woken_s(clipper, file.stem), rest[woken : 2 * woken]))
        private = sorted(each["private_mb"] for each in before.values())
        shared = sorted(each["pss_mb"] for each in before.values())
        return {
            "models": models,
            "options": list(options),
            "deployed_in_s": round(all_s, 1),
            "start_s": _spread(sorted(one.deployed_s for one in starts)),
            "start_of_process_s": _spread(sorted(one.process_s for one in starts)),
            "start_of_process_cpu_s": _spread(sorted(one.process_cpu_s for one in starts)),
            "private_mb": _spread(private),
            "pss_mb": _spread(shared),
            "pss_of_all_mb": round(sum(shared)),
            "private_mb_once_asked": _spread(sorted(each["private_mb"] for each in after)),
            "supervisor_mb": sizes_mb[0],
            "workers_mb": sizes_mb[1],
            "idle_percent_of_a_core": idle,
            "taken_over_and_asleep_in_s": round(asleep_in_s, 1),
            "woken_one_by_one_s": _spread(sorted(one_s)),
            "woken_at_once_s": _spread(sorted(at_once_s)),
        }


def _made(folder: Path, models: int) -> Iterable[Path]:
    """Models of ten digits, no two of which are the same."""
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(images[:400] / 16, labels[:400])
    for number in range(models):
        model.coef_ = model.coef_ + np.random.default_rng(number).normal(0, 1e-6, model.coef_.shape)
        path = folder / f"digits{number}.joblib"
        joblib.dump(model, path)
        yield path


def _start(clipper: Clipper, server: servers.ClipperServer, file: Path) -> Start:
    began_s = time.perf_counter()
    clipper.deploy(file.stem, file, wait=False, replicas=MAY_SLEEP)
    _until_ready(clipper, file.stem)
    deployed_s = time.perf_counter() - began_s
    (replica,) = clipper.replicas([file.stem])
    assert replica.pid is not None
    cpu_s = servers.processor_ns(replica.pid) / 1e9
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started_s = booted_s + (start_time(replica.pid) or 0) / os.sysconf("SC_CLK_TCK")
    # Its record is written anew once it is ready.
    record = server.home / "run" / f"{slot_name(Slot(file.stem, '1', 1))}.json"
    return Start(deployed_s, record.stat().st_mtime - started_s, cpu_s)


def _until_ready(clipper: Clipper, name: str) -> None:
    until_s = time.perf_counter() + READY_WITHIN_S
    while (version := clipper.version(name, "1")).state != "ready":
        if version.state == "failed" or time.perf_counter() > until_s:
            raise RuntimeError(f"{name} is {version.state}: {version.last_error}")
        time.sleep(POLL_S)


def _until_asleep(clipper: Clipper) -> None:
    began_s = time.perf_counter()
    while left := len(clipper.replicas()):
        if time.perf_counter() > began_s + ALL_ASLEEP_WITHIN_S:
            raise RuntimeError(f"{left} models are awake {ALL_ASLEEP_WITHIN_S:g} s after nobody asks")
        time.sleep(0.5)


def _woken_s(clipper: Clipper, name: str) -> float:
    """From the query that wakes it to the model's own answer."""
    began_s = time.perf_counter()
    answer = clipper.predict(name, [0.0] * 64)
    if answer.default:
        raise RuntimeError(f"{name} has not woken: {answer}")
    return time.perf_counter() - began_s


def _ask(clipper: Clipper, server: servers.ClipperServer, name: str) -> None:
    clipper.create_application(name, model=name, slo_ms=5000.0)
    images, _ = load_digits(return_X_y=True)
    for row in images[:QUERIES]:
        clipper.predict(name, row.tolist())


def _memory(clipper: Clipper) -> dict[str, dict[str, float]]:
    """The memory of each model's replica, by the model's name."""
    return {each.model: _of_process(each.pid) for each in clipper.replicas() if each.pid is not None}


def _of_process(pid: int) -> dict[str, float]:
    kb: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        kb[name] = int(rest.split()[0])
    private = kb["Private_Clean"] + kb["Private_Dirty"]
    return {"private_mb": private / 1000, "pss_mb": kb["Pss"] / 1000}


def _idle_percent(server: servers.ClipperServer) -> dict[str, float]:
    """The processor time of the supervisor and of the workers while nobody asks, in percent of a core."""
    pids = server.process_ids()
    before = [servers.processor_ns(pid) for pid in pids]
    began_s = time.perf_counter()
    time.sleep(IDLE_S)
    seconds = time.perf_counter() - began_s
    spent = [(servers.processor_ns(pid) - ns) / 1e7 / seconds for pid, ns in zip(pids, before)]
    return {"supervisor": round(spent[0], 1), "workers": round(sum(spent[1:]), 1)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Of values in order."""
    found = {"median": median(values), "most": values[-1]}
    found |= {f"p{percent}": values[int(percent / 100 * (len(values) - 1))] for percent in (95, 99)}
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else MODELS
    if not SAMPLE < count <= MOST_MODELS:
        sys.exit(f"expected {SAMPLE + 1} to {MOST_MODELS} models, got {count}")
    print(json.dumps(main(count, sys.argv[2:]), indent=1))
