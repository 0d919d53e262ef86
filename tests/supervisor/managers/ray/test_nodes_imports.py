"""Imports of Clipper's programs in a Ray cluster: a node has Ray and few packages more."""

import subprocess
import sys
from pathlib import Path

from tests.architecture.source_tree import imports

REQUIREMENTS = Path(__file__).parents[4] / "requirements" / "ray.txt"
# Ray itself, which takes minutes to install, has any name here.
IMPORT = """
import importlib.abc, importlib.machinery, sys, types
from unittest.mock import MagicMock

class Ray(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        return MagicMock()

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first == "ray":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        if first in sys.argv[1:]:
            raise ModuleNotFoundError(f"no module named {name!r} on a node")

    def create_module(self, spec):
        return Ray(spec.name)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Finder())
import clipper.supervisor.managers.ray.driver
import clipper.supervisor.managers.ray.node_actor
"""


def test_programs_on_a_node_import_what_a_node_has() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line[:1].isalpha()]
    there = {line.partition("=")[0].rstrip(">") for line in lines}
    imported = {each.module.partition(".")[0] for each in imports()} - {"clipper", *sys.stdlib_module_names}
    assert {"ray", "msgspec"} <= there & imported and "httptools" in imported
    command = [sys.executable, "-c", IMPORT, *(imported - there)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
