from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manager_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """One whose containers are forked."""
    bench = Bench(tmp_path, fork_from=1)
    yield bench
    bench.close()
