"""The server of ``make scale``, small: what stands for parts of the supervisor and of workers still fits them."""

import asyncio
from pathlib import Path

from benchmarks.scale import stubs
from benchmarks.scale.fleet import Size, fleet, model_name
from clipper.containers import link
from clipper.containers.link import ReplicaLink
from clipper.containers.protocol.messages import Welcome
from clipper.types import ModelId
from waiting import until_async


def test_a_server_of_stubs_takes_changes_and_says_what_is_asked(tmp_path: Path) -> None:
    with fleet(tmp_path, Size(2, 4, 3)) as (running, digest):
        assert running.create_application("new", model_name(1)) > 0
        assert running.deploy(model_name(0), "next", digest, 2) > 0
        replicas = running.call("GET", "/replicas", params={"model": model_name(0)})
        limits = [one["batch_limit"] for one in replicas if one["state"] == "ready"]
        assert len(limits) >= 2 and all(limits)
        _, _, size = running.read("/metrics")
        assert size > 10_000


class Listener:
    welcome: Welcome | None = None

    def on_linked(self, welcome: Welcome) -> None:
        self.welcome = welcome

    def on_results(self, batch_id: int, results: object) -> None: ...

    def on_error(self, batch_id: int, message: str) -> None: ...

    def on_lost(self, reason: str) -> None: ...


def test_a_link_in_memory_comes_up() -> None:
    async def link_up() -> None:
        before, link._connect = link._connect, stubs.connect
        try:
            listener = Listener()
            dialled = ReplicaLink(ModelId("model-0", "1"), "unix:stub", "model-0:1", listener)
            dialled.open()
            await until_async(lambda: listener.welcome is not None)
            dialled.close()
        finally:
            link._connect = before

    asyncio.run(link_up())
