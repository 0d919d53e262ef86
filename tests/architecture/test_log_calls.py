"""Log messages of server, workers and containers: each value has a name, and each name is in the documented list."""

import ast
import re
from collections.abc import Iterator

from clipper.base.log_format import FIELDS
from tests.architecture.source_tree import files

LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[^%]")
# The fields that anything's ``log_fields`` has.
OF_A_SUBJECT = {"model", "version", "replica"}


def loggers(tree: ast.Module) -> set[str]:
    """The names of a module's loggers."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    made = [node for node in assigned if ast.unparse(node.value).startswith("logging.getLogger(")]
    return {ast.unparse(target) for node in made for target in node.targets}


def calls() -> Iterator[tuple[str, ast.Call, list[ast.expr]]]:
    """Each call of a logger: where it is, and its arguments from the message on."""
    for file in files():
        tree = ast.parse(file.read_text())
        names = loggers(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                level = node.func.attr
                if level in (*LEVELS, "log") and ast.unparse(node.func.value) in names:
                    yield f"{file}:{node.lineno}", node, node.args[level == "log" :]


def names_of(values: ast.expr) -> set[str]:
    """The names of a call's values."""
    if isinstance(values, ast.Attribute) and values.attr == "log_fields":
        return OF_A_SUBJECT
    told = f"expected one dict of values by their names, or something's log_fields: {ast.unparse(values)}"
    assert isinstance(values, ast.Dict), told
    found: set[str] = set()
    for key, value in zip(values.keys, values.values):
        found |= names_of(value) if key is None else {ast.literal_eval(key)}
    return found


def test_each_value_of_a_message_has_a_name_of_the_list() -> None:
    used: set[str] = set()
    for where, call, (message, *values) in calls():
        assert isinstance(message, ast.Constant) and isinstance(message.value, str), f"{where}: expected a plain text"
        assert {keyword.arg for keyword in call.keywords} <= {"exc_info"}, where
        assert len(values) < 2, f"{where}: expected one dict of values by their names"
        names = names_of(values[0]) if values else set()
        assert names <= set(FIELDS), f"{where}: {names - set(FIELDS)} is not in clipper.base.log_format.FIELDS"
        # Without values nothing is formatted.
        shown = set(PLACEHOLDER.findall(message.value.replace("%%", ""))) if values else set()
        assert shown <= names, f"{where}: {message.value!r} has what {names} have not"
        used |= names
    assert used == set(FIELDS), "each field is said by some call"


def test_log_fields_are_of_the_list() -> None:
    found = [
        node
        for file in files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "log_fields"
    ]
    assert found
    for function in found:
        returned = next(node.value for node in ast.walk(function) if isinstance(node, ast.Return))
        assert returned is not None and names_of(returned) <= OF_A_SUBJECT
