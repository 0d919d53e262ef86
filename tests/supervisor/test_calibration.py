"""Confidences of a live server with two workers: stated by answers, calibrated by feedback, shown, logged, and kept."""

from typing import Any

import pytest

from clipper.learning.decisions.export import row_of
from clipper.learning.decisions.joining import joined
from clipper.learning.decisions.reading import LogReader
from tests.supervisor.live_server import Server
from tests.waiting import until

# Says of label 1 that it has the probability that it is asked about.
ECHO = "def predict(inputs): return [[1.0 - float(row[0]), float(row[0])] for row in inputs]\n"
APP: dict[str, Any] = {
    "name": "app",
    "slo_ms": 20_000,
    "links": [{"model": "echo"}],
    "default_output": "unsure",
    "confidence_from": "probabilities",
    "calibrate": True,
    "log_decisions": 1,
}
SURE, LESS_SURE = [0.98, 0.0], [0.7, 0.0]


def teach(server: Server, times: int) -> None:
    """Of four answers three are right, however sure they are."""
    for row in (SURE, LESS_SURE):
        ids = [server.predict("app", row)["query_id"] for _ in range(times)]
        observations = [{"query_id": id_, "label": int(number % 4 > 0)} for number, id_ in enumerate(ids)]
        answer = server.observe("app", observations=observations)
        assert answer.json()["observations"] == [{"observed": True, "duplicate": False}] * times


def confidences(server: Server, row: list[float]) -> list[float]:
    """Of some answers, so that each worker gives some."""
    return [server.predict("app", row)["confidence"] for _ in range(12)]


def settled(server: Server, row: list[float]) -> float:
    """The answers of all workers, once each has read what the others have learned."""

    def found() -> float | None:
        answered = confidences(server, row)
        return answered[0] if max(answered) - min(answered) < 0.01 and answered[0] < 0.9 else None

    confidence: float = until(found)
    return confidence


@pytest.mark.long
def test_confidence_comes_to_say_how_often_answers_are_right(server: Server) -> None:
    server.start("--workers", "2")
    assert server.deploy("echo", ECHO, input_type="float64[2]")["state"] == "ready"
    bad = server.call("POST", "/applications", APP | {"confidence_from": "votes"}, status=400)
    assert "confidence_from" in bad["cause"]
    server.call("POST", "/applications", APP)
    assert set(confidences(server, SURE)) == {0.98}, "without feedback it is what the answer states"
    teach(server, 40)
    sure, less_sure = settled(server, SURE), settled(server, LESS_SURE)
    assert 0.7 < less_sure <= sure < 0.85

    def calibration() -> Any:
        """Of whichever worker tells it, once that has read what the other has learned last."""
        (found,) = server.call("GET", "/applications/app/policy")["calibration"]
        return found if sum(each["answers"] for each in found["raw"]) > 75 else None

    found = until(calibration)
    assert (found["model"], found["basis"]) == ("echo", "probability")
    assert [round(each["confidence"], 2) for each in found["raw"]] == [0.7, 0.98]
    assert all(round(each["right"], 2) == 0.75 for each in found["raw"])
    # (0.98 - 0.75 + 0.75 - 0.7) / 2, and the number of answers; half-lives have faded them a little.
    assert round(found["raw_error"], 2) == 0.14
    assert all(75 < sum(each["answers"] for each in found[by]) < 80 for by in ("raw", "answered"))
    assert "clipper_selection_calibration_error" in server.metrics
    assert server.call("GET", "/applications/app")["calibrate"] is True

    server.kill_everything()
    server.start("--workers", "2").until_ready()
    assert abs(settled(server, SURE) - sure) < 0.02, "what was acknowledged is not lost"

    server.call("PATCH", "/applications/app", {"confidence_threshold": 0.9})
    unsure = server.predict("app", SURE)
    assert (unsure["output"], unsure["default_reason"], unsure["default"]) == ("unsure", "low_confidence", True)
    assert unsure["low_confidence_output"][1] == 0.98 and abs(unsure["confidence"] - sure) < 0.05
    server.call("PATCH", "/applications/app", {"calibrate": False})
    raw = server.predict("app", SURE)
    assert (raw["output"][1], raw["confidence"]) == (0.98, 0.98)

    def logged() -> Any:
        rows = {row["query_id"]: row for row in map(row_of, joined(LogReader(server.home / "decisions")))}
        return rows if unsure["query_id"] in rows and raw["query_id"] in rows else None

    row = until(logged)[unsure["query_id"]]
    assert (row["raw_confidence"], row["confidence"], row["reason"]) == (0.98, unsure["confidence"], "low_confidence")
