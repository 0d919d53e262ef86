"""``clipper plan``: what it says, against the management API in memory; its decisions are tested in ``capacity/``."""

import pytest

from tests.cli.in_process import Run, usage_error


@pytest.fixture
def app(run: Run, model: str) -> str:
    assert run("deploy", "digits", model).status == 0
    assert run("app", "create", "digits", "--model", "digits", "--slo-ms", "100").status == 0
    return "digits"


def test_plan_says_replicas_limit_and_what_to_do(run: Run, app: str) -> None:
    found = run("plan", app, "--rate", "1500")
    assert found.status == 0, found.err
    assert "3 ms + 1 ms a row" in found.out
    assert "of 1500/s are answered within 100 ms" in found.out
    assert "digits limits it" in found.out
    assert "next: clipper model scale digits" in found.out
    told = run("plan", app, "--rate", "1500", "--json").json
    assert (told["application"], told["rate_per_s"], told["slo_ms"], told["limit"]) == (app, 1500.0, 100.0, app)
    [step] = told["steps"]
    assert step["replicas"] == told["cores"] > step["replicas_now"] == 1
    assert told["is_kept"]


def test_plan_that_cannot_be_kept_has_status_1(run: Run, app: str) -> None:
    found = run("plan", app, "--rate", "5000", "--cores", "1")
    assert found.status == 1
    assert "no plan within 1 cores keeps 100 ms at 5000/s" in found.out
    never = run("plan", app, "--rate", "10", "--slo-ms", "2")
    assert (never.status, "at no rate" in never.out) == (1, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--rate 0", "0.001"),
        ("--rate 5e-324", "0.001"),
        ("--rate nan", "expected"),
        ("--rate 5 --cores -1", "above 0"),
        ("--rate 5 --slo-ms 0", "above 0"),
        ("", "--rate"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(run: Run, options: str, says: str) -> None:
    assert says in usage_error(run, f"plan digits {options}")


def test_fewer_cores_than_steps_are_refused(run: Run, app: str) -> None:
    found = run("plan", app, "--rate", "5", "--cores", "0.5")
    assert (found.status, "less than one replica of each step uses" in found.err) == (1, True)
