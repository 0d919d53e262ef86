"""Which Python a model runs in."""

import pytest

from clipper.supervisor.managers.environments.plan import (
    Build,
    Interpreter,
    Own,
    is_version,
    mismatch,
    plan_environment,
    unmet,
)

PACKAGES = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "xgboost": "3.2.0", "opencv-python": "4.14.0.94"}
OWN = Own(Interpreter("/usr/bin/python3.11", "3.11.7"), PACKAGES)


@pytest.mark.parametrize(("text", "expected"), [("3.12", True), ("3.12.1", True), ("python3.12", False), ("3", False)])
def test_versions_are_told_from_paths(text: str, expected: bool) -> None:
    assert is_version(text) is expected


@pytest.mark.parametrize(
    "needs",
    [
        (),
        ("scikit-learn==1.9.1",),
        ("scikit_learn", "numpy"),
        ("xgboost-cpu==3.2.0",),
        ("opencv-python-headless<5",),
        ("python==3.11", "numpy==2.4.6"),
    ],
)
def test_clippers_own_python_is_used_if_it_has_what_is_needed(needs: tuple[str, ...]) -> None:
    assert plan_environment(None, None, needs, OWN) is None


def test_what_is_missing_or_of_another_version_is_built() -> None:
    needs = ("scikit-learn==1.5.2", "onnxruntime", "numpy<2", "numpy>=1")
    assert plan_environment(None, None, needs, OWN) == Build("".join(f"{need}\n" for need in needs), None)
    assert unmet((*needs, "scikit-learn"), PACKAGES) == list(needs)


def test_a_model_of_another_python_is_built_with_that() -> None:
    assert plan_environment(None, None, ("python==3.12", "numpy"), OWN) == Build("numpy\n", "3.12")
    assert plan_environment(None, "3.13", ("python==3.12", "numpy"), OWN) == Build("numpy\n", "3.13")


def test_an_interpreter_that_is_named_is_used_as_it_is() -> None:
    assert plan_environment(None, "/usr/bin/python3", ("onnxruntime",), OWN) is None


def test_a_version_of_python_is_an_environment() -> None:
    assert plan_environment(None, "3.11", ("scikit-learn==1.9.1",), OWN) == Build("scikit-learn==1.9.1\n", "3.11")
    assert plan_environment(None, "3.12", (), OWN) == Build("", "3.12")


@pytest.mark.parametrize("python", [None, "3.12", "/usr/bin/python3"])
def test_requirements_are_always_built_and_are_all_there_is(python: str | None) -> None:
    assert plan_environment("scipy\n", python, ("scikit-learn==1.9.1",), OWN) == Build("scipy\n", python)


def test_a_model_saved_with_another_version_is_told() -> None:
    told = mismatch(("scikit-learn==1.5.2", "numpy", "joblib==1.3", "python==3.12"), PACKAGES)
    assert told == (
        "the model was saved with scikit-learn 1.5.2 but runs with 1.9.1: its answers may differ, or it may not load"
    )
    assert mismatch(("scikit-learn==1.9.1", "numpy"), PACKAGES) is None
