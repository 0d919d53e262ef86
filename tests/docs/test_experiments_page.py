"""docs/experiments.md against the command and the policy that it explains."""

from pathlib import Path

from clipper.cli.commands.report_summary import COLUMNS
from clipper.learning.policies.best_arm import BestArm

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()


def test_every_column_is_explained_and_shown() -> None:
    explained = [row.split("|")[1] for row in PAGE.split("| column |")[1].split("\n\n")[0].splitlines()[2:]]
    assert [name for row in explained for name in map(str.strip, row.split(","))] == list(COLUMNS[1:])
    head = next(line for line in PAGE.splitlines() if line.startswith("model "))
    assert all(column in head for column in COLUMNS)


def test_defaults_are_those_of_the_policy() -> None:
    policy = BestArm()
    assert (
        f"with confidence {policy.confidence:g}, no model is better than the leader by more than {policy.tolerance:g}"
        in PAGE
    )
