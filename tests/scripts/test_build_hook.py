"""The modules that are compiled, and structs in them."""

import ast
import inspect
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from build_hook import with_native_structs

from clipper.supervisor.managers.launcher import RUNTIME_PARTS
from clipper.worker.abstraction.work import Work
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.selection.query import Query

ROOT = Path(__file__).parents[2]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOK["custom"]["modules"]

STRUCT = '''"""A module."""

import msgspec


class Point(msgspec.Struct, OPTIONS):
    """One."""

    x: float
    names: list[str] | None = None
    is_known: bool = False  # so far

    def moved(self) -> float:
        return self.x + 1
'''


@pytest.mark.parametrize("module", MODULES)
def test_each_line_of_what_is_compiled_stays_where_it_is(module: str) -> None:
    source = (ROOT / "src/clipper" / module).read_text()
    native = with_native_structs(source)
    compile(native, module, "exec")
    assert len(native.splitlines()) == len(source.splitlines())
    assert "msgspec.Struct" not in native


def test_nothing_is_compiled_that_containers_run() -> None:
    assert [module for module in MODULES if module.startswith(RUNTIME_PARTS)] == []


@pytest.mark.parametrize(("options", "is_acyclic"), [("eq=False", False), ("gc=False, eq=False", True)])
def test_a_struct_compared_by_identity_becomes_a_class_with_constructor(options: str, is_acyclic: bool) -> None:
    asked: list[dict[str, object]] = []
    point = made(STRUCT.replace("OPTIONS", options), "Point", asked)(2.0, is_known=True)
    assert (point.x, point.names, point.is_known, point.moved()) == (2.0, None, True, 3.0)
    assert not isinstance(point, msgspec.Struct)
    assert asked == ([{"acyclic": True}] if is_acyclic else [])


@pytest.mark.parametrize("struct", [Work, Query, Exchange])
def test_constructor_is_as_msgspec_has_it(struct: type[msgspec.Struct]) -> None:
    module = inspect.getmodule(struct)
    assert module is not None
    native = made(inspect.getsource(module), struct.__name__, [])
    parameters = list(inspect.signature(native).parameters.values())
    assert tuple(parameter.name for parameter in parameters) == struct.__struct_fields__
    defaults = [parameter.default for parameter in parameters if parameter.default is not inspect.Parameter.empty]
    assert len(defaults) == len(struct.__struct_defaults__)


@pytest.mark.parametrize("options", ["", "frozen=True", "eq=True", "frozen=True, eq=False", "gc=False"])
def test_struct_that_is_compared_by_value_or_checked_is_refused(options: str) -> None:
    with pytest.raises(ValueError, match="Point is compiled: expected"):
        with_native_structs(STRUCT.replace("OPTIONS", options))


def test_struct_that_extends_another_has_its_constructor() -> None:
    derived = "\n\nclass Named(Point, gc=False, eq=False):\n    name: str = 'a'\n"
    named = made(STRUCT.replace("OPTIONS", "gc=False, eq=False") + derived, "Named", [])(2.0)
    assert (named.x, named.name, named.is_known) == (2.0, "a", False)


def test_what_extends_a_struct_that_is_compiled_is_compiled() -> None:
    native, extended = set(), {}
    for path in (ROOT / "src/clipper").rglob("*.py"):
        module = path.relative_to(ROOT / "src/clipper").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(keyword.arg == "eq" for keyword in node.keywords):
                if module in MODULES:
                    native.add(node.name)
                else:
                    extended[f"{module}: {node.name}"] = {ast.unparse(base) for base in node.bases}
    assert {"Query", "Work", "Exchange"} <= native
    assert [name for name, bases in extended.items() if bases & native] == []


def test_struct_that_leaves_no_line_for_its_constructor_is_refused() -> None:
    with pytest.raises(ValueError, match="line 12 is not blank"):
        with_native_structs(STRUCT.replace("OPTIONS", "eq=False").replace("so far\n\n", "so far\n"))


def made(source: str, name: str, asked: list[dict[str, object]]) -> Any:
    """The class as the interpreter makes it; ``asked`` gets what mypyc was asked for."""

    def mypyc_attr(**attributes: object) -> Any:
        asked.append(attributes)
        return lambda native: native

    names: dict[str, Any] = {"mypyc_attr": mypyc_attr, "__name__": "native"}
    exec(with_native_structs(source), names)
    return names[name]
