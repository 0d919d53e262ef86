"""Which containers run other code or settings than those that a server starts."""

from pathlib import Path
from typing import Any

import pytest

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.manager import Manager
from clipper.values.types import Loader


@pytest.mark.parametrize(
    ("loader", "noted", "is_outdated"),
    [
        ("import", {"build": "b2", "log_format": "json"}, False),
        ("file", {"build": "b1", "log_format": "json"}, True),
        ("file", {"build": "b2", "log_format": "text"}, True),
        ("file", {"build": "b2"}, True),
        ("binary", {"build": "b1"}, False),
        ("image", {"build": "b1"}, False),
    ],
)
def test_what_runs_clippers_runtime_has_its_code_and_its_log_format(
    loader: Loader, noted: dict[str, Any], is_outdated: bool
) -> None:
    def nothing(*_: object) -> Any:
        return None

    manager = Manager({}, Path(), nothing, nothing, nothing, nothing, "b2", "json")
    note = ContainerNote("m", "1", 1, 1, "unix:s", VersionSpec("a", loader, "m:f"), **noted)
    assert manager.is_outdated(note) is is_outdated
