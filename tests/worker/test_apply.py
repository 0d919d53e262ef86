"""Snapshots that come to a worker while it still applies another."""

import asyncio
from pathlib import Path
from typing import Any

from clipper.control.difference import Difference
from clipper.control.messages import Applied, Apply, ApplyDifference
from clipper.control.snapshot import Snapshot
from clipper.worker.config import WorkerConfig
from clipper.worker.worker import Worker
from tests.event_loops import run_clean


def test_a_difference_is_not_applied_once_its_base_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = f"sqlite:{tmp_path / 'selection.sqlite3'}"
        worker = Worker(
            WorkerConfig(host="127.0.0.1", port=0, index=0, instance=1, control="", store=store), lambda: None
        )
        await worker.answer(Apply(Snapshot(1, (), ())))
        prepare, may_go_on = worker._own_code.prepare, asyncio.Event()

        async def prepare_later(*arguments: Any) -> None:
            await may_go_on.wait()
            await prepare(*arguments)

        worker._own_code.prepare = prepare_later  # type: ignore[method-assign]
        answer = asyncio.ensure_future(worker.answer(ApplyDifference(Difference(1, 2))))
        await asyncio.sleep(0)
        worker._predictor.forget()  # another difference could not be applied
        may_go_on.set()
        applied = await answer
        assert isinstance(applied, Applied) and applied.generation == 0
        await worker._store.close()

    run_clean(scenario())
