"""Time for the first run, which builds the environments."""

from pathlib import Path

import pytest

from tests.model.frameworks.framework_cases import FIRST_RUN

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(FIRST_RUN)
