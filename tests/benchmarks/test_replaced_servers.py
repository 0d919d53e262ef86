"""Feedback while equal servers behind a balancer are replaced; the benchmark has the figures of five under load."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.learning.contexts import redis_server
from benchmarks.learning.replaced_servers import measure

pytestmark = pytest.mark.long


def test_feedback_while_equal_servers_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as store:
        options = [*store.options, "--remember-in-store"]
        run, learned_from, replaced = asyncio.run(measure(tmp_path, options, 2, 40.0, 20.0, 10.0, 5.0))
    assert replaced and not run.lost and run.acknowledged == run.queries == learned_from
