"""The files that ``make mutants`` changes exist, and each mutant that it counts apart quotes the source."""

import ast
import tomllib
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "clipper"


def test_each_part_that_is_changed_is_there_with_its_tests() -> None:
    # The module itself imports what only ``make mutants`` installs.
    tree = ast.parse((TESTS / "mutants.py").read_text())
    told = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "FOLDERS"]
    for part in map(Path, ast.literal_eval(told[0])):
        tests = part.with_name(f"test_{part.name}") if part.suffix else part
        assert (SOURCE / part).exists() and (TESTS / tests).exists(), part


def test_each_known_mutant_changes_lines_that_there_are() -> None:
    kinds = tomllib.loads((TESTS / "mutants.toml").read_text())
    assert kinds.keys() == {"equal", "tuned"}
    for known in (one for kind in kinds.values() for one in kind):
        assert known.keys() == {"module", "before", "after", "reason"} and known["before"] != known["after"]
        text = " ".join((SOURCE / known["module"]).read_text().split())
        assert " ".join(known["before"].split()) in text, known
