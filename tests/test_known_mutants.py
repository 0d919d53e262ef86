"""What ``make mutants`` counts apart is quoted from the source as it is."""

import tomllib
from pathlib import Path

TESTS = Path(__file__).parent


def test_each_known_mutant_changes_lines_that_there_are() -> None:
    kinds = tomllib.loads((TESTS / "mutants.toml").read_text())
    assert kinds.keys() == {"equal", "tuned"}
    for known in (one for kind in kinds.values() for one in kind):
        assert known.keys() == {"module", "before", "after", "reason"} and known["before"] != known["after"]
        text = " ".join((TESTS.parent / "src" / "clipper" / known["module"]).read_text().split())
        assert " ".join(known["before"].split()) in text, known
