"""``make scale``, small: what stands for parts of the supervisor and of workers still fits them; its table is saved."""

import asyncio
import json
import tempfile
from pathlib import Path

import pytest

from benchmarks.scale import scrapes, stubs
from benchmarks.scale.__main__ import READS, Effort, Saved, main
from benchmarks.scale.page import BEGIN, END
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import pids
from clipper.model.protocol.batches import make_encoder
from clipper.model.protocol.messages import Welcome
from clipper.values.types import ModelId
from clipper.worker import link
from clipper.worker.link import ReplicaLink
from tests.small_container import DOUBLES
from tests.waiting import until_async

SMALL = Effort(settle_s=0.0, rest_s=0.1, applications=1, deployments=1, reads=1)


@pytest.mark.long
def test_a_server_of_stubs_takes_changes_and_its_numbers_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Saved(tmp_path / "results.json", tmp_path / "page.md", tmp_path / "picture.svg")
    saved.page.write_text(f"before\n\n{BEGIN}of the run before\n{END}\nafter\n")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # of a short path, since sockets are in it
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert main([2], 3, SMALL, query_rounds=0, saved=saved) == 0
    assert [pid for pid in pids() if mark_of(pid).startswith(folder)] == []
    page = saved.page.read_text()
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "the run before" not in page
    assert "![" in page and "(picture.svg)" in page and "| beside 2 models |" in page
    assert saved.picture.read_text().startswith("<?xml")
    (size,) = json.loads(saved.results.read_text())["sizes"]
    assert (size["models"], size["replicas"], size["workers"]) == (2, 10, 3)
    assert set(size["reads"]) == set(READS) and size["reads"]["/metrics"][2] > 10_000


class Listener:
    welcome: Welcome | None = None

    def on_linked(self, welcome: Welcome) -> None:
        self.welcome = welcome

    def on_told(self, welcome: Welcome) -> None:
        self.welcome = welcome

    def on_ask(self, ask_id: int, body: object) -> None: ...

    def on_results(self, batch_id: int, results: object) -> bool:
        return True

    def on_error(self, batch_id: int, message: str) -> bool:
        return True

    def on_lost(self, reason: str) -> None: ...


def test_a_link_in_memory_comes_up() -> None:
    async def link_up() -> None:
        before, link._connect = link._connect, stubs.connect
        try:
            listener = Listener()
            dialled = ReplicaLink(ModelId("model-0", "1"), make_encoder(DOUBLES), "unix:stub", "model-0:1", listener)
            dialled.open()
            await until_async(lambda: listener.welcome is not None)
            dialled.close()
        finally:
            link._connect = before

    asyncio.run(link_up())


@pytest.mark.long
def test_scrapes_of_stub_workers_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    scrapes.main(110, 2)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0].removeprefix("| ") for row in rows] == [
        name for name in scrapes.CHANGES for _ in range(1 if "first" in name else scrapes.ROUNDS)
    ]
    assert all(float(row[5].removesuffix(" MB")) > 1.0 for row in rows), "each has the text of all"
