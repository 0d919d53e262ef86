"""Reads the source tree as text: which file imports what. Nothing of Clipper is imported here."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "clipper"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, or one name of it.

    Attributes:
        name: what is taken out of the module; empty where all of it is imported.
        lazy: inside a function: done when that is called, not when its file is imported.
    """

    file: str
    line: int
    module: str
    name: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    """``src/clipper/values/inputs/reader.py`` is ``clipper.values.inputs.reader``."""
    parts = ("clipper", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> frozenset[str]:
    return frozenset(module_name(file) for file in files())


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every file of the package."""
    return tuple(found for file in files() for found in _imports_of(file))


def imports_in(text: str, file: str, package: str) -> Iterator[Import]:
    """Every import in ``text``, a file of ``package``; relative ones made absolute."""
    yield from _walk(ast.parse(text), file, package, lazy=False)


def _imports_of(file: Path) -> Iterator[Import]:
    name = module_name(file)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    yield from imports_in(file.read_text(), file.relative_to(ROOT).as_posix(), package)


def _walk(node: ast.AST, file: str, package: str, *, lazy: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(file, node.lineno, alias.name, "", lazy)
    elif isinstance(node, ast.ImportFrom):
        for module, name in _from_modules(node, package):
            yield Import(file, node.lineno, module, name, lazy)
    inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, package, lazy=inside)


def _from_modules(node: ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    """``from a.b import c`` is of ``a.b.c`` where that is a module of ours, else of ``a.b``."""
    base = node.module or ""
    if node.level:
        above = package.split(".")
        above = above[: len(above) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    for alias in node.names:
        full = f"{base}.{alias.name}"
        yield (full, "") if full in modules() else (base, alias.name)
