"""Records from clients that others wrote: tritonclient, kserve and MLflow, each in an environment of its own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.real_models import environment
from tests.serving import application, model, serving, version
from tests.waiting import TIMEOUT_S
from tests.worker.frontend.others_clients import told_by

CLIENTS = Path(__file__).parent / "clients"
PERSON = 'age: float64, colour: string{"red","green"}, visits: int32 = 1, height: float64?'
TOLD = [
    {"age": 31.0, "colour": "red", "visits": 2, "height": 1.8},
    {"age": 4.5, "colour": "green", "visits": 1, "height": None},
]
WITHOUT_HEIGHT = [each | {"height": None} for each in TOLD]

# The first run on a machine builds the environments.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as started:
        started.start_worker()
        people = started.start_record_container("people", PERSON)
        started.apply(
            [application("people", "people", input_type=PERSON)],
            [model(version(people, input_type=PERSON), name="people")],
        )
        yield f"127.0.0.1:{started.port}"


def test_tritonclient(address: str) -> None:
    found = told_by(CLIENTS / "triton_records.py", address)
    assert found == {"inputs": ["age", "colour", "visits", "height"], "binary": TOLD, "json": WITHOUT_HEIGHT}


def test_kserve(address: str) -> None:
    assert told_by(CLIENTS / "kserve_records.py", address) == {"binary": WITHOUT_HEIGHT, "json": WITHOUT_HEIGHT}


def test_mlflow(address: str) -> None:
    done = subprocess.run(
        [environment("mlflow"), CLIENTS / "mlflow_records.py", address],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert [
        each | {"height": each["height"] if index == 0 else None} for index, each in enumerate(found["frame"])
    ] == TOLD
    assert [each["visits"] for each in found["given"]] == [5, 5]
    assert found["csv"] == TOLD
    assert "BAD_REQUEST" in found["refused"] or "field 'colour' is" in found["refused"]
