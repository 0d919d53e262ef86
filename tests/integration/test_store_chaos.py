"""Feedback is acknowledged while Redis, workers and the supervisor are killed and started again.

Whatever was acknowledged is learned, and once, however often its sender had to send it.
"""

import itertools
import os
import random
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import pytest

from clipper.errors import ClipperError
from clipper.settings.home import read_place
from tests.redis_server import RedisServer
from tests.supervisor.live_server import NO_TLS, Server
from tests.supervisor.three_models import APP, NEVER_FORGETS, ROW, with_models
from tests.waiting import TIMEOUT_S, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SEED = 20170327
# Each comes once so much more feedback was acknowledged: what is killed is always at work.
ACTS = 4 * ["redis"] + 4 * ["worker"] + 2 * ["supervisor"]
ACKNOWLEDGED_EACH = 100
SENDERS, PIECES = 8, 10


class Sender:
    """Sends lists of feedback until each piece has its answer, and counts what was tried and what was acknowledged."""

    def __init__(self, home: Path) -> None:
        self._home, self._url = home, read_place(home).query_url
        self._lock, self.has_ended = Lock(), Event()
        self._numbers = itertools.count()
        # Pieces on inputs, by id; and pieces on queries, which a worker that is killed no longer knows.
        self.on_inputs: list[str] = []
        self.tried_on_queries = self.on_queries = 0

    @property
    def acknowledged(self) -> int:
        return len(self.on_inputs) + self.on_queries

    def send(self) -> None:
        while not self.has_ended.is_set():
            ids = [f"piece-{next(self._numbers)}" for _ in range(PIECES)]
            self._observe("inputs", [{"input": ROW, "label": 2, "id": each} for each in ids])
            with self._lock:
                self.on_inputs += ids
            if (asked := self._call("queries", "predict", {"input_batch": [ROW] * PIECES})) is None:
                continue
            # Without a default, a query whose models are away has an error and no id.
            answers = asked["batch_predictions"]
            pieces = [{"query_id": each["query_id"], "label": 2} for each in answers if "query_id" in each]
            if not pieces:
                continue
            with self._lock:
                self.tried_on_queries += len(pieces)
            told = self._observe("queries", pieces)
            with self._lock:
                self.on_queries += told

    def _observe(self, application: str, pieces: Sequence[dict[str, Any]]) -> int:
        """Send pieces until each is acknowledged, or its query is no longer known; return how many are acknowledged."""
        left, acknowledged = [*pieces], 0

        def is_told() -> bool:
            nonlocal acknowledged
            answer = self._call(application, "observe", {"observations": left})
            if answer is None:
                return False
            told = answer["observations"]
            acknowledged += sum("error" not in each for each in told)
            left[:] = [piece for piece, each in zip(left, told) if "error" in each and each["error"] != "not_found"]
            return not left

        until(is_told)
        return acknowledged

    def _call(self, application: str, what: str, body: Any) -> Any:
        """Ask any worker; None if none answers, or not well."""
        with suppress(ClipperError):  # no supervisor runs: workers go on where they were
            self._url = read_place(self._home).query_url
        with suppress(httpx.TransportError):
            answer = httpx.post(f"{self._url}/{application}/{what}", json=body, timeout=TIMEOUT_S, verify=NO_TLS)
            if answer.is_success:
                return answer.json()
        return None


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_what_is_acknowledged_is_learned_once_whatever_is_killed(tmp_path: Path, fsync: str) -> None:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        redis.start("--appendfsync", fsync)
        server = Server(tmp_path / "home", "--store", redis.url, "--workers", "2")
        try:
            with_models(server)
            for name in ("inputs", "queries"):
                server.call("POST", "/applications", {**APP, "name": name, "policy": "exp4", **NEVER_FORGETS})
            sender = Sender(server.home)
            with ThreadPoolExecutor(SENDERS) as threads:
                sending = [threads.submit(sender.send) for _ in range(SENDERS)]
                try:
                    act(server, lambda: redis.start("--appendfsync", fsync), redis.kill, sender, sending)
                finally:
                    sender.has_ended.set()
                for each in sending:
                    each.result()
            judge(server, sender)
            assert server.stop() == 0
        finally:
            server.clean_up()


def act(
    server: Server,
    start_redis: Callable[[], None],
    kill_redis: Callable[[], None],
    sender: Sender,
    sending: "Sequence[Future[None]]",
) -> None:
    acts = [*ACTS]
    random.Random(SEED).shuffle(acts)
    for kind in acts:
        after = sender.acknowledged + ACKNOWLEDGED_EACH
        until(
            lambda after=after: sender.acknowledged >= after,  # type: ignore[misc]
            failed=lambda: [each.exception() for each in sending if each.done()],
        )
        match kind:
            case "redis":
                kill_redis()
                start_redis()
            case "worker":
                os.kill(until(lambda: server.worker_pids)[0], signal.SIGKILL)
            case "supervisor":
                server.kill()
                server.start()
    server.until_ready()


def judge(server: Server, sender: Sender) -> None:
    assert sender.on_queries >= ACKNOWLEDGED_EACH
    for start in range(0, len(sender.on_inputs), 500):
        left = [{"input": ROW, "label": 2, "id": each} for each in sender.on_inputs[start : start + 500]]

        def are_known(left: list[dict[str, Any]] = left) -> bool:
            told = server.observe("inputs", observations=left).json()["observations"]
            # A worker that has a broken connection to Redis says so, and has learned nothing: the piece is sent again.
            again = [each.get("error") == "store_unavailable" for each in told]
            assert all(each.get("duplicate") or is_again for each, is_again in zip(told, again))
            left[:] = [piece for piece, is_again in zip(left, again) if is_again]
            return not left

        until(are_known)
    until(lambda: learned(server, "inputs") == len(sender.on_inputs))
    assert sender.on_queries <= learned(server, "queries") <= sender.tried_on_queries


def learned(server: Server, application: str) -> float:
    return float(server.call("GET", f"/applications/{application}/policy")["observations"])
