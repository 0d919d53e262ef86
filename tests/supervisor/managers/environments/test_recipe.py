"""An environment's name follows from all that is in it, and from nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.managers.environments.plan import Interpreter, Recipe

PYTHON = Interpreter("/usr/bin/python3.12", "3.12.1")
LINES = st.lists(st.sampled_from(["numpy==2.0", "scipy", "--no-index", "# why", "", "  "]), max_size=5)


def meant(lines: list[str]) -> list[str]:
    return [line for line in lines if line.strip() and not line.startswith("#")]


@given(LINES, LINES)
def test_the_key_tells_what_is_meant_and_no_comments(one: list[str], other: list[str]) -> None:
    keys = [Recipe("\n".join(lines), PYTHON).key for lines in (one, other)]
    assert (keys[0] == keys[1]) == (meant(one) == meant(other))


@given(LINES)
def test_what_is_installed_ends_with_what_the_runtime_needs(lines: list[str]) -> None:
    assert Recipe("\n".join(lines), PYTHON).text.splitlines() == [*meant(lines), "numpy"]


def test_another_interpreter_is_another_environment() -> None:
    others = (PYTHON, Interpreter("/usr/bin/python3.12", "3.12.2"), Interpreter("/opt/python3.12", "3.12.1"))
    assert len({Recipe("scipy", python).key for python in others}) == 3


def test_versions_are_compared_by_their_numbers() -> None:
    assert PYTHON.is_a("3.12") and PYTHON.is_a("3.12.1")
    assert not PYTHON.is_a("3.1") and not PYTHON.is_a("3.12.10")
    assert PYTHON.is_recent and not Interpreter("/usr/bin/python3.9", "3.9.18").is_recent
