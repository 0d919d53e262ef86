"""Nothing in the folders that tests import from is named like a package: it would stand for one that is missing."""

import tomllib

import pytest

from tests.architecture.source_tree import ROOT, imports

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
FOLDERS = [folder for folder in SETTINGS["pythonpath"] if folder != "."]


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_named_like_what_clipper_imports(folder: str) -> None:
    imported = {each.module.partition(".")[0] for each in imports()}
    assert {"docker", "msgspec"} <= imported
    assert {entry.stem for entry in (ROOT / folder).iterdir()} & imported == set()
