"""Series of a real server: its workers counted them."""

import os
import signal
from typing import Any

import pytest

from clipper.supervisor.history.values import OF_OVERVIEW
from tests.supervisor.live_server import APP, Server
from tests.waiting import until

ROW = [1.0, 2.0]


def overview(server: Server) -> Any:
    return server.call("GET", "/series")


def of_app(server: Server, name: str = "app") -> Any:
    return server.call("GET", f"/series/applications/{name}?seconds=60")


def is_counted(series: list[float | None]) -> bool:
    return any(series)


def begun(server: Server) -> bool:
    """Whether readings of before are there, so that what comes now is counted."""
    rates: list[float | None] = of_app(server)["series"]["rate"]
    return bool(rates) and rates[-1] is not None


@pytest.mark.long
def test_series_show_what_was_asked_and_begin_anew_after_a_restart(shared: Server) -> None:
    until(lambda: begun(shared))
    for _ in range(10):
        shared.predict("app", ROW)
    until(lambda: is_counted(of_app(shared)["series"]["rate"]))
    found = of_app(shared)
    series = found["series"]
    assert found["step_s"] == 2 and found["end_s"] > 1e9 and not found["left_out"]
    assert {len(each) for each in series.values()} == {len(series["rate"])}
    assert max(value for value in series["answer_share.m"] if value is not None) == 1.0
    assert max(value for value in series["p99_ms"] if value is not None) > 0
    assert series["slo_ms"][-1] == 20_000
    model = shared.call("GET", "/series/models/m")["series"]
    assert is_counted(model["rate"])
    assert model["replicas_ready"][-1] == model["replicas_wanted"][-1] == 1
    all_ = overview(shared)
    assert set(all_["applications"]["app"]) == set(OF_OVERVIEW["application"])
    assert set(all_["models"]["m"]) == {"rate", "replicas_ready"}
    assert all_["workers"]["0"]["rss_bytes"][-1] > 1e6 and all_["left_out"] == 0
    assert shared.call("GET", "/series/applications/nobody", status=404)["error"] == "not_found"

    shared.kill()
    shared.start()
    until(lambda: begun(shared))
    assert not is_counted(of_app(shared)["series"]["rate"])


@pytest.mark.long
def test_a_worker_that_is_killed_and_an_application_made_again(shared: Server) -> None:
    def is_asked() -> bool:
        shared.predict("app", ROW)
        return bool(of_app(shared)["series"]["rate"][-1])

    until(is_asked)
    (pid,) = shared.worker_pids
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        (worker,) = shared.call("GET", "/status")["workers"]
        return worker["state"] == "ready" and worker["pid"] != pid

    until(is_back)
    until(lambda: not of_app(shared)["series"]["rate"][-1])
    until(is_asked)
    assert min(value for value in of_app(shared)["series"]["rate"] if value is not None) >= 0

    shared.call("DELETE", "/applications/app")
    assert shared.ask("GET", "/series/applications/app").status_code == 404
    shared.call("POST", "/applications", APP)
    until(lambda: begun(shared))
    assert not is_counted(of_app(shared)["series"]["rate"])
