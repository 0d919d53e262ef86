"""Writes the commit into wheels and source archives, and compiles the query path with HATCH_BUILD_HOOKS_ENABLE=1.

pyproject.toml lists what is compiled. All is done on a copy, so that no checkout holds compiled modules.
"""

import ast
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the file COMMIT, and the compiled modules beside their source, which tracebacks quote."""

    def dependencies(self) -> list[str]:
        # mypyc needs the types of what Clipper imports.
        return ["mypy>=1.19", "setuptools>=77", *self.metadata.core.dependencies] if self._compiles() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="clipper-build-"))
        if version == "editable":  # a clone's files and commit change after it is installed
            return
        if commit := commit_of(Path(self.root)):
            (self._folder / "COMMIT").write_text(commit)
            package = "clipper" if self.target_name == "wheel" else "src/clipper"
            build_data["force_include"][str(self._folder / "COMMIT")] = f"{package}/COMMIT"
        if not self._compiles():
            return
        built = compile_modules(Path(self.root), self.config["modules"], self._folder)
        build_data["force_include"].update({str(path): str(path.relative_to(self._folder / "lib")) for path in built})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._folder)

    def _compiles(self) -> bool:
        return self.target_name == "wheel" and os.environ.get("HATCH_BUILD_HOOKS_ENABLE") in ("1", "true")


def commit_of(root: Path) -> str:
    """Return the commit of the clone at ``root``, with ``-dirty`` if files were changed; empty if it is not a clone."""
    if not (root / ".git").exists():  # git would answer for a clone that has this folder in it
        return ""
    git = ["git", "-c", "safe.directory=*", "-C", str(root)]  # whoever owns the clone
    describe = ["describe", "--always", "--exclude=*", "--abbrev=8", "--dirty"]
    try:
        return subprocess.run([*git, *describe], check=True, capture_output=True, encoding="ascii").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def compile_modules(root: Path, modules: Sequence[str], folder: Path) -> list[Path]:
    """Compile these modules of the package, by work in ``folder``; return the extension modules, below its ``lib``."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    shutil.copytree(root / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)  # has the options of mypy
    with contextlib.chdir(folder):
        sources = [Path("src/clipper", module) for module in modules]
        for source in sources:
            source.write_text(with_native_structs(source.read_text()))
        paths = ["--config-file", "pyproject.toml", *map(str, sources)]
        extensions = mypycify(paths, opt_level="2", debug_level="0", group_name="clipper")
        build = Distribution({"name": "clipper", "ext_modules": extensions}).get_command_obj("build_ext")
        build.build_lib = "lib"
        build.ensure_finalized()
        build.run()
    return sorted((folder / "lib").rglob("*.so"))


def with_native_structs(source: str) -> str:
    """The text of a module, with native classes of mypyc in place of its structs.

    mypyc leaves a class whose base is not compiled to the interpreter, and with it each access to a struct's fields.
    Structs that are compared by identity need nothing of msgspec but their constructor, which is written out here,
    and, with ``gc=False``, that the collector does not look at them, which mypyc calls acyclic. No line moves, so that
    tracebacks quote the right ones.

    Raises:
        ValueError: a struct is not compared by identity. Of its annotations, by which msgspec decodes and checks, mypyc
            keeps only the simplest: such structs belong into a module that is not compiled.
    """
    lines = source.splitlines()
    module = ast.parse(source)
    for node in module.body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = ", ".join(map(ast.unparse, node.bases))
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_derived = bases != "msgspec.Struct"
        if is_derived and "eq" not in options:  # no struct
            continue
        if options.pop("eq", "True") != "False" or options not in ({}, {"gc": "False"}):
            raise ValueError(f"{node.name} is compiled: expected msgspec.Struct with eq=False, and gc=False or not")
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        if is_derived and not all(field.value for field in fields):
            raise ValueError(f"{node.name} is compiled: expected fields with defaults alone, beside those of {bases}")
        for field in () if is_derived else fields:  # a default is the constructor's alone
            lines[field.lineno - 1] = lines[field.lineno - 1][: field.annotation.end_col_offset]
        if not is_derived:
            names = [ast.unparse(field.target) for field in fields]
            constructor = f"    def __init__(self, {', '.join(map(ast.unparse, fields))}) -> None: "
            _fill(lines, fields[-1].end_lineno, constructor + "; ".join(f"self.{name} = {name}" for name in names))
        lines[node.lineno - 1] = f"class {node.name}({bases}):" if is_derived else f"class {node.name}:"
        if "gc" in options:
            lines[module.body[0].end_lineno - 1] += "; import typing"
            _fill(lines, node.lineno - 3, "if typing.TYPE_CHECKING: from mypy_extensions import mypyc_attr")
            _fill(lines, node.lineno - 2, "@mypyc_attr(acyclic=True)")
    return "\n".join(lines) + "\n"


def _fill(lines: list[str], index: int, text: str) -> None:
    if lines[index : index + 1] not in ([], [""]):
        raise ValueError(f"line {index + 1} is not blank: {lines[index]!r}")
    lines[index : index + 1] = [text]
