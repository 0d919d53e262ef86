"""The runtime runs in a model's own environment: there is nothing but the standard library and numpy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clipper
from clipper.supervisor.managers.launcher import RUNTIME_PARTS
from clipper.supervisor.managers.logs import in_text
from tests.waiting import TIMEOUT_S

SOURCE = Path(clipper.__file__).parent
MODULES = {
    "clipper",
    "clipper.base",
    "clipper.base.log_format",
    "clipper.base.masking",
    "clipper.base.oom",
    "clipper.errors",
    "clipper.model",
    "clipper.values",
    "clipper.values.columns",
    "clipper.values.json_types",
    "clipper.values.output_arrays",
    "clipper.values.records",
    "clipper.values.types",
}
OPTIONS = ("--listen=unix:s", "--model=m", "--version=1", "--artifact=.", "--loader=import", "--target=m:f")
# Run with an import hook rather than by looking at what is there: numpy may bring in what it finds.
PROBE = """
import builtins, sys
original = builtins.__import__
def checked(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    root = name.partition(".")[0]
    if importer.startswith("clipper") and not level and root not in sys.stdlib_module_names | {"numpy", "clipper"}:
        raise SystemExit(f"{importer} imports {name}")
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = checked
import clipper.model.runtime.__main__, clipper.model.runtime.program
print(*(name for name in sys.modules if name.startswith("clipper")))
"""


def test_runtime_imports_the_standard_library_and_numpy_only() -> None:
    run = subprocess.run(
        (sys.executable, "-c", PROBE),
        env={"PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 0, run.stderr
    allowed = "clipper.model."
    for name in run.stdout.split():
        assert name in MODULES or name.startswith(allowed)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_python_without_numpy_is_told(log_format: str) -> None:
    options = ("--log-format", log_format)
    run = subprocess.run(
        (sys.executable, "-S", "-m", "clipper.model.runtime", *OPTIONS, *options),  # without its site-packages
        env={"PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert run.returncode == 3
    assert run.stderr.count("\n") == 1
    (line,) = in_text(run.stderr.removesuffix("\n"))
    assert line.startswith(f"clipper: {sys.executable} has no numpy, which Clipper's runtime needs: install it")
    assert (line == run.stderr.removesuffix("\n")) == (log_format == "text")


def test_runtime_is_written_for_python_3_10() -> None:
    files = [
        file for part in RUNTIME_PARTS for file in (SOURCE / part, *(SOURCE / part).rglob("*.py")) if file.is_file()
    ]
    assert len(files) > 30
    for path in files:
        ast.parse(path.read_text(), feature_version=(3, 10))
