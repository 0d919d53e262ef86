"""When a standby takes the lease, and when it ends what its home left; the registry's answers are scripted."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipper.errors import NotLeader, RegistryUnavailable
from clipper.settings.home import Place
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.leadership import succession as standby_module
from clipper.supervisor.leadership.succession import LEFT_FOR_S, PATIENCE_S, Standby, StandbyOperations, who_leads
from clipper.supervisor.registry.lease import Lease, LeaseTimes
from clipper.supervisor.registry.shared import Away, Leader
from clipper.supervisor.registry.store import Contents
from clipper.supervisor.stop_requests import StopRequests

Answer = Lease | Leader | Away | RegistryUnavailable
GRANTED = Lease(LeaseTimes(), 8, 0.0)
OTHER = Leader(7, "http://other:1338", 1e9, is_ready=False)
READY = Leader(7, "http://other:1338", 1e9, is_ready=True)
AWAY = Away("the registry cannot be used")


class ScriptedRegistry:
    """Each answer is given after some time, in seconds since the one before. A lease is given only to who takes it."""

    shown_address = "redis://h/0"

    def __init__(self, clock: list[float], *answers: tuple[float, Answer]) -> None:
        self.clock = clock
        self.answers = list(answers)
        self.asked: list[bool] = []

    def acquire(self, takes: bool = True) -> Lease | Leader | Away:
        seconds, answer = self.answers[0]
        self.clock[0] += seconds
        self.asked.append(takes)
        if isinstance(answer, Lease) and not takes:
            return OTHER
        if len(self.answers) > 1:
            del self.answers[0]
        if isinstance(answer, RegistryUnavailable):
            raise answer
        return answer

    def load(self) -> Contents:
        return Contents((), (), ())

    def artifact_sizes(self) -> dict[str, int]:
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(standby_module, "clock_s", lambda: now[0])
    monkeypatch.setattr(standby_module, "ASK_EVERY_S", 0.0)
    # This process has children of other tests.
    monkeypatch.setattr(standby_module, "reap_children", lambda: None)
    return now


def wait(registry: ScriptedRegistry, folder: Path, stop: Callable[[], bool] = lambda: False) -> tuple[Any, list[float]]:
    """The lease that a standby gets, and the times at which it ended the leftovers."""
    stopping, ended = StopRequests(0.0), []

    async def end_left() -> None:
        ended.append(registry.clock[0])
        if stop():
            stopping.request()

    async def run() -> Lease | None:
        return await Standby(registry, Artifacts(folder), end_left, stopping).wait()  # type: ignore[arg-type]

    return asyncio.run(run()), ended


def test_what_was_left_ends_once_the_leader_is_ready_and_only_once(clock: list[float], tmp_path: Path) -> None:
    answers = [(1.0, OTHER), (1.0, OTHER), (1.0, READY), (1.0, READY), (1.0, GRANTED)]
    lease, ended = wait(ScriptedRegistry(clock, *answers), tmp_path)
    assert (lease, ended) == (GRANTED, [1003.0])


def test_what_was_left_stays_while_nobody_else_is_known_to_lead(clock: list[float], tmp_path: Path) -> None:
    answers = [(LEFT_FOR_S, AWAY), (LEFT_FOR_S, AWAY), (1.0, OTHER), (PATIENCE_S + 1, GRANTED)]
    lease, ended = wait(ScriptedRegistry(clock, *answers), tmp_path)
    assert (lease, ended) == (GRANTED, [])


def test_a_leader_that_never_is_ready_keeps_nothing_running_for_ever(clock: list[float], tmp_path: Path) -> None:
    answers = [(1.0, OTHER), (LEFT_FOR_S - 1.0, OTHER), (2.0, OTHER)]
    _, ended = wait(ScriptedRegistry(clock, *answers), tmp_path, stop=lambda: True)
    assert ended == [1000.0 + LEFT_FOR_S + 2.0]


def test_after_redis_was_away_its_leader_gets_time_to_renew(clock: list[float], tmp_path: Path) -> None:
    registry = ScriptedRegistry(clock, (1.0, OTHER), (1.0, AWAY), (1.0, AWAY), (2.0, GRANTED))
    lease, _ = wait(registry, tmp_path)
    assert lease is GRANTED
    # It was away at 2 and 3 s, and is back at 5 s; it is asked every 2 s then, and from 10 s on the lease is taken.
    assert registry.asked == [True, True, False, False, False, False, False, True]


def test_a_refusal_is_no_reason_to_end(clock: list[float], tmp_path: Path) -> None:
    refusal = RegistryUnavailable("registry redis://h/0 has schema version 9")
    lease, _ = wait(ScriptedRegistry(clock, (1.0, refusal), (1.0, GRANTED)), tmp_path)
    assert lease is GRANTED


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (OTHER, "the server at http://other:1338 leads, with epoch 7; ask there"),
        (AWAY, "does not know which server leads: the registry cannot be used"),
        (RegistryUnavailable("schema version 9"), "cannot lead: schema version 9"),
        (GRANTED, "taking over"),
    ],
)
def test_every_call_but_a_few_is_refused_with_who_leads(clock: list[float], outcome: Answer, said: str) -> None:
    registry: Any = ScriptedRegistry(clock, (0.0, AWAY))
    stopping = StopRequests(0.0)
    standby = Standby(registry, Artifacts(Path()), lambda: asyncio.sleep(0), stopping)
    standby.outcome = outcome
    operations = StandbyOperations(standby, registry, Path(), Place(1, "http://m", "http://q", 0.0), stopping, {})

    async def run() -> None:
        status = await operations.status()
        assert status.problems == (who_leads(standby),) and said in status.problems[0]
        assert status.lease is not None and status.lease.role == "standby"
        assert status.lease.leader == ("http://other:1338" if outcome is OTHER else None)
        assert await operations.why_not_ready()
        assert b'clipper_lease_leads{registry="redis://h/0"} 0.0' in await operations.metrics(False, None, None)
        for call in (operations.list_models, operations.list_applications):
            with pytest.raises(NotLeader, match=r"standby|taking over"):
                await call()
        await operations.stop()
        assert stopping.is_requested

    asyncio.run(run())
