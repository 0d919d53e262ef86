"""Time for the first run, which builds the environments."""

from pathlib import Path

import pytest
from framework_environments import FIRST_RUN_S

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(FIRST_RUN_S))
