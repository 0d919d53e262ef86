"""The demo's course: deploy, query, roll back, kill; the load never stops."""

import asyncio
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.harness.load import LoadClient
from benchmarks.harness.servers import ClipperServer
from benchmarks.harness.training import digits
from examples.demo.screen import Scene, Screen
from examples.demo.traffic import Digits, Traffic

# A machine of two cores can keep it that runs the client and both models as well, and something else besides.
SLO_MS = 50
CONNECTIONS = 32
# Long enough to see each stretch's numbers settle; with training and stopping all of it takes less than a minute.
FOREST_S, SVM_S, KILLED_S = 8, 5, 6
# A whole run that takes longer has failed; commands are bounded by themselves.
RUN_WITHIN_S = 120
POLL_EVERY_S = 0.5
DRAW_EVERY_S = 0.25

FOREST = "the random forest answers"
ROLLING_BACK = "rolling back while queries flow"
SVM = "the linear SVM answers"
KILLED = "a replica was killed with SIGKILL"


class Story:
    """One run against a started server. Every command that it gives is printed as a user would type it."""

    def __init__(self, server: ClipperServer, console: Console) -> None:
        self._server = server
        self._screen = Screen(console)
        self._scene = Scene(SLO_MS)
        self.traffic = Traffic()

    async def tell(self, svm: Path, forest: Path) -> tuple[Traffic, int]:
        """Return what was answered and how many queries were lost."""
        await self._command("deploy", "digits", str(svm), "--version", "1", "--replicas", "2")
        await self._command("app", "create", "digits", "--model", "digits", "--slo-ms", str(SLO_MS), "--default", "-1")
        await self._command("deploy", "digits", str(forest), "--version", "2")
        client = self._load()
        with self._screen.live():
            watching = [asyncio.ensure_future(self._poll()), asyncio.ensure_future(self._draw(client))]
            await asyncio.wait_for(self._act(client), RUN_WITHIN_S)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        return self.traffic, client.sent - client.answered

    def _load(self) -> LoadClient[int]:
        _, (images, labels) = digits()
        queries = Digits("digits", images, labels)
        host, port = self._server.query_address()
        return LoadClient(host, port, CONNECTIONS, queries.next_request, self.traffic.add)

    async def _act(self, client: LoadClient[int]) -> None:
        self._begin(FOREST)
        load = asyncio.ensure_future(client.run())
        await asyncio.sleep(FOREST_S)
        self._begin(ROLLING_BACK)
        await self._command("model", "rollback", "digits")
        self._begin(SVM)
        await asyncio.sleep(SVM_S)
        await self._kill_one_replica()
        self._begin(KILLED)
        await asyncio.sleep(KILLED_S)
        client.stop()
        await load

    def _begin(self, stretch: str) -> None:
        self._scene.stretch = stretch
        self._scene.limits = []
        self.traffic.begin(stretch)

    async def _command(self, *arguments: str) -> Any:
        self._screen.console.print(f"[bold]$ clipper {shlex.join(arguments)}[/]", highlight=False, soft_wrap=True)
        return await asyncio.to_thread(self._server.run, *arguments)

    async def _kill_one_replica(self) -> None:
        model = await asyncio.to_thread(self._server.run, "model", "show", "digits")
        victim = next(replica for replica in current_version(model)["replicas"] if replica["pid"])
        self._screen.console.print(f"[bold]$ kill -9 {victim['pid']}[/]   # {victim['id']}", highlight=False)
        os.kill(victim["pid"], signal.SIGKILL)

    async def _poll(self) -> None:
        """Keep the scene's outer facts up to date: they come from the management API."""
        url, headers = self._server.management_url, self._server.authorization()
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=5) as http:
            while True:
                model = (await http.get("/models/digits")).raise_for_status().json()
                metrics = (await http.get("/metrics")).raise_for_status().text
                self._take(model, metrics)
                await asyncio.sleep(POLL_EVERY_S)

    def _take(self, model: dict[str, Any], metrics: str) -> None:
        scene, version = self._scene, current_version(model)
        scene.current = model["current"]
        scene.replicas = {replica["id"]: replica["state"] for replica in version["replicas"]}
        scene.limits += [max(replica["batch_limit"] or 0 for replica in version["replicas"])]
        scene.cache_hits = cache_hits(metrics)

    async def _draw(self, client: LoadClient[int]) -> None:
        scene = self._scene
        while True:
            await asyncio.sleep(DRAW_EVERY_S)
            scene.recent = self.traffic.recent()
            scene.answered, scene.lost = client.answered, client.lost
            self._screen.show(scene)


def current_version(model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(version for version in model["versions"] if version["version"] == model["current"])
    return found


def cache_hits(metrics: str) -> int:
    """The sum over versions and workers, read without a parser so that a scrape does not disturb the load."""
    lines = [line for line in metrics.splitlines() if line.startswith("clipper_cache_hits_total{")]
    return round(sum(float(line.rpartition(" ")[2]) for line in lines))
