"""docs/environments.md against the code that it tells of."""

import re
from pathlib import Path
from typing import get_args

import pytest

from clipper.client.packaging.needs import needs_of
from clipper.supervisor.managers.environments.builder import BUILD_TIMEOUT_S
from clipper.supervisor.managers.environments.plan import MAX_ENVIRONMENTS
from clipper.supervisor.managers.environments.provider import MAX_BUILDS
from clipper.supervisor.managers.environments.uv_settings import uv_variables
from clipper.values.types import Framework

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()


def test_bounds_are_those_of_the_code() -> None:
    assert f"A build may take {BUILD_TIMEOUT_S / 60:g} minutes" in PAGE
    assert f"Beyond {MAX_ENVIRONMENTS}, those" in PAGE
    assert MAX_BUILDS == 2 and "two are under way at a time" in PAGE


@pytest.mark.parametrize("framework", sorted(set(get_args(Framework)) - {"pickle", "mlflow"}))
def test_what_each_framework_needs_is_listed(tmp_path: Path, framework: Framework) -> None:
    (tmp_path / "model").write_bytes(b"\n")
    rows = re.findall(r"^\| .* \| (.*) \|$", PAGE, re.MULTILINE)
    named = set(re.findall(r"`([\w<-]+)`", " ".join(rows))) | {"joblib"}
    assert set(needs_of(framework, tmp_path / "model")) <= named


@pytest.mark.parametrize(
    "setting", ["index-url", "find-links", "constraint", "cert", "trusted-host", "proxy", "timeout"]
)
def test_settings_of_pip_that_are_named_are_taken_over(setting: str) -> None:
    assert uv_variables({setting: "value"}, {}) != {}
