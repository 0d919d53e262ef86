"""Which Python a model runs in."""

import pytest

from clipper.managers.environments.plan import Build, mismatch, plan_environment, unmet

OWN = {"scikit-learn": "1.9.1", "numpy": "2.4.6", "xgboost": "3.2.0"}


@pytest.mark.parametrize("needs", [(), ("scikit-learn==1.9.1",), ("scikit_learn", "numpy"), ("xgboost-cpu==3.2.0",)])
def test_clippers_own_python_is_used_if_it_has_what_is_needed(needs: tuple[str, ...]) -> None:
    assert plan_environment(None, False, False, needs, OWN) is None
    assert unmet(needs, OWN) == []


def test_what_is_missing_or_of_another_version_is_built() -> None:
    needs = ("scikit-learn==1.5.2", "onnxruntime", "numpy")
    assert plan_environment(None, False, False, needs, OWN) == Build("scikit-learn==1.5.2\nonnxruntime\nnumpy\n")
    assert unmet(needs, OWN) == ["scikit-learn==1.5.2", "onnxruntime"]


def test_an_interpreter_that_is_named_is_used_as_it_is() -> None:
    assert plan_environment(None, True, False, ("onnxruntime",), OWN) is None


def test_a_version_of_python_is_an_environment() -> None:
    assert plan_environment(None, True, True, ("scikit-learn==1.9.1",), OWN) == Build("scikit-learn==1.9.1\n")
    assert plan_environment(None, True, True, (), OWN) == Build("")


@pytest.mark.parametrize("given", [(False, False), (True, False), (True, True)])
def test_requirements_are_always_built_and_are_all_there_is(given: tuple[bool, bool]) -> None:
    assert plan_environment("scipy\n", *given, ("scikit-learn==1.9.1",), OWN) == Build("scipy\n")


def test_a_model_saved_with_another_version_is_told() -> None:
    told = mismatch(("scikit-learn==1.5.2", "numpy", "joblib==1.3"), OWN)
    assert told == (
        "the model was saved with scikit-learn 1.5.2, and runs with 1.9.1: its answers may differ, or it may not load"
    )
    assert mismatch(("scikit-learn==1.9.1", "numpy"), OWN) is None
