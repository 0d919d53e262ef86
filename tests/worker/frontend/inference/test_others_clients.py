"""Clients of the protocol that others wrote, each in a process of its own, in an environment that holds no Clipper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Serving, application, model, serving, version
from tests.worker.frontend.others_clients import (
    PERF_OPTIONS,
    assert_asyncio_found,
    assert_kserve_found,
    assert_perf_analyzer_runs,
    assert_tritonclient_found,
    told_by,
)

CLIENTS = Path(__file__).parent / "clients"
SUM = "def predict(inputs):\n    return [float(row.sum()) + {} for row in inputs]\n"
UPPER = "def predict(inputs):\n    return [text.upper() for text in inputs]\n"

# The first run on a machine builds the environment.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        own = "float32[4]"
        first = started.start_container(SUM.format(0), input_type=own)
        second = started.start_container(SUM.format(100), version="2", input_type=own)
        upper = started.start_container(UPPER, "t", "1", "string")
        started.apply(
            [application("app", input_type=own), application("text", "t", input_type="string")],
            [
                model(version(first, input_type=own), version(second, name="2", input_type=own)),
                model(version(upper, input_type="string"), name="t"),
            ],
        )
        yield started


@pytest.fixture(scope="module")
def address(system: Serving) -> str:
    return f"127.0.0.1:{system.port}"


def test_tritonclient(address: str) -> None:
    found = told_by(CLIENTS / "triton_http.py", address)
    alike = ("binary", "json", "json_out", "deflate", "compressed_answer", "widened", "half", "async")
    assert_tritonclient_found(found, "rest", {"binary_tensor_data", "statistics"}, alike)
    assert (found["unknown_ready"], found["statistics"], found["parameters"]) == (False, "app", False)
    assert found["json_texts"] == found["texts"]


def test_tritonclient_with_asyncio(address: str) -> None:
    assert_asyncio_found(told_by(CLIENTS / "triton_aio.py", address), "404")


def test_kserves_client(address: str) -> None:
    assert_kserve_found(told_by(CLIENTS / "kserve_rest.py", address), ("binary", "json", "listed"))


def test_clients_made_from_the_description(address: str) -> None:
    found = told_by(CLIENTS / "openapi_client.py", address)
    assert (found["server"], found["versions"], found["sums"]) == ("clipper", ["1", "2"], [[10.0], [26.0]])
    assert found["answer"]["outputs"] == [{"name": "output", "shape": [1, 1], "datatype": "FP64", "data": [10.0]}]


@pytest.mark.parametrize("options", PERF_OPTIONS)
def test_perf_analyzer(address: str, options: str) -> None:
    assert_perf_analyzer_runs("http", address, options)
