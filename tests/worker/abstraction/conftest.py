from collections.abc import Callable
from pathlib import Path

import pytest

from clipper.settings.version import Batching
from tests.event_loops import run_clean
from tests.queue_bench import EIGHT, Bench, Scenario


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def run_scenario(scenario: Scenario, batching: Batching = EIGHT, cache: bool = True) -> None:
        async def whole() -> None:
            bench = Bench(tmp_path, batching, cache)
            try:
                await scenario(bench)
            finally:
                await bench.end()

        run_clean(whole())

    return run_scenario
