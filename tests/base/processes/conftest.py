from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.base.processes.folder import ProcessFolder
from tests.started_processes import folder_in


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ProcessFolder]:
    folder = folder_in(tmp_path)
    yield folder
    folder.sweep(keep=())
