"""Asks a Clipper about pictures in turn, and tells it after each few which digits they are."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import joblib

from benchmarks.calibration.models import ESTIMATORS, split
from benchmarks.calibration.results import Answers
from benchmarks.harness import servers

# Feedback on so many answers comes at once, as it would on those of a minute.
BATCH = 20
VOTE = "vote"


def measure(asked: int) -> dict[str, Answers]:
    """By application, the answers to the first ``asked`` pictures: of each model, and of all their votes together."""
    train, (images, labels) = split()
    with tempfile.TemporaryDirectory(prefix="clipper-calibration-") as folder, servers.clipper() as server:
        for name, make in ESTIMATORS.items():
            path = Path(folder) / f"{name}.joblib"
            joblib.dump(make().fit(*train), path)
            server.run("deploy", name, str(path), "--output", "probabilities")
            server.run("deploy", f"{name}-label", str(path))
            _create(server, name, ["--model", name, "--confidence-from", "probabilities"])
        votes = [option for name in ESTIMATORS for option in ("--model", f"{name}-label")]
        _create(server, VOTE, [*votes, "--policy", "ensemble"])
        with httpx.Client(base_url=server.query_url, timeout=60) as client:
            found: dict[str, Answers] = {name: Answers([], [], []) for name in (*ESTIMATORS, VOTE)}
            for start in range(0, asked, BATCH):
                rows = images[start : start + BATCH].tolist()
                for name, answers in found.items():
                    _ask(client, name, rows, labels[start : start + BATCH].tolist(), answers)
    return found


def _create(server: servers.ClipperServer, name: str, options: list[str]) -> None:
    """One application that calibrates, and one that does not."""
    server.run("app", "create", name, *options, "--slo-ms", "5000", "--calibrate")
    server.run("app", "create", f"{name}-raw", *options, "--slo-ms", "5000")


def _ask(client: httpx.Client, name: str, rows: list[Any], labels: list[int], answers: Answers) -> None:
    told = list(_predictions(client, name, rows))
    for raw, calibrated, label in zip(_predictions(client, f"{name}-raw", rows), told, labels):
        output = calibrated["output"]
        decided = output.index(max(output)) if isinstance(output, list) else output
        answers.raw.append(raw["confidence"])
        answers.calibrated.append(calibrated["confidence"])
        answers.right.append(decided == label)
    feedback = [{"query_id": each["query_id"], "label": label} for each, label in zip(told, labels)]
    client.post(f"/{name}/observe", json={"observations": feedback}).raise_for_status()


def _predictions(client: httpx.Client, name: str, rows: list[Any]) -> Iterator[Mapping[str, Any]]:
    answer = client.post(f"/{name}/predict", json={"input_batch": rows}).raise_for_status()
    yield from answer.json()["batch_predictions"]
