"""A leader and its lease; the registry's answers are scripted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clipper.errors import NotLeader, RegistryUnavailable
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.registry.lease import Lease, LeaseTimes
from clipper.supervisor.registry.shared import Away, Leader, Renewed, clock_s
from tests.waiting import until_async

AWAY = Away("the registry redis://h/0 cannot be used: Connection refused")
# Renewals follow each other at once, but the lease lasts.
HASTY = LeaseTimes(renew_every_s=0.0, retry_every_s=0.0)


class ScriptedRegistry:
    """Answers each renewal with ``answer``."""

    shown_address = "redis://h/0"
    doubt: str | None = None

    def __init__(self, answer: Renewed | Leader | Away) -> None:
        self.answer = answer
        self.told: list[bool] = []
        self.released = 0
        self.reserved: list[tuple[str, int]] = []
        self.refuses: list[Exception] = []
        self.synced = 0

    def reserve(self, counter: str, count: int) -> int:
        if self.refuses:
            raise self.refuses.pop()
        self.reserved.append((counter, count))
        return 1

    def renew(self, is_ready: bool) -> Renewed | Leader | Away:
        self.told.append(is_ready)
        return self.answer

    async def sync(self) -> None:
        self.synced += 1
        if isinstance(self.answer, Away):
            raise RegistryUnavailable(self.answer.why)

    def release(self) -> None:
        self.released += 1
        if isinstance(self.answer, Away):
            raise RegistryUnavailable(self.answer.why)


def run(registry: Any, steps: Callable[[Leadership], Awaitable[None]]) -> None:
    async def lead() -> None:
        leadership = Leadership(registry, Lease(HASTY, 7, clock_s()), "http://here", 1e9)
        await steps(leadership)
        leadership.lost.cancel()

    asyncio.run(lead())


def test_while_the_registry_is_silent_there_is_a_problem_and_no_loss() -> None:
    registry = ScriptedRegistry(AWAY)

    async def steps(leadership: Leadership) -> None:
        await until_async(leadership.problems)
        (problem,) = leadership.problems()
        assert "Connection refused" in problem and "changes are refused" in problem
        assert leadership.status().renewals_failed > 0
        registry.answer = Renewed("http://there")
        await until_async(lambda: not leadership.problems())
        status = leadership.status()
        assert (status.role, status.epoch, status.leader, status.standby) == (
            "leader",
            7,
            "http://here",
            "http://there",
        )
        assert status.renewed_s_ago is not None and not leadership.lost.done()
        assert leadership.may_act()

    run(registry, steps)


def test_whoever_leads_now_is_why_the_lease_is_lost() -> None:
    async def steps(leadership: Leadership) -> None:
        assert "epoch 8: http://there" in await leadership.lost
        assert not leadership.may_act()

    run(ScriptedRegistry(Leader(8, "http://there", 1e9, is_ready=True)), steps)


def test_a_change_in_doubt_has_the_registry_read_again_once_it_answers() -> None:
    registry = ScriptedRegistry(AWAY)
    registry.doubt = "Redis did not say whether it stored a change"

    async def steps(leadership: Leadership) -> None:
        await until_async(leadership.problems)
        assert not leadership.lost.done()
        registry.answer = Renewed(None)
        assert "starts again with what is stored" in await leadership.lost

    run(registry, steps)


@pytest.mark.parametrize("answer", [Renewed(None), AWAY])
def test_changes_of_a_takeover_are_awaited_on_disk_while_it_lasts(answer: Renewed | Away) -> None:
    registry = ScriptedRegistry(answer)

    async def steps(leadership: Leadership) -> None:
        # Nobody else asks for it, and a registry that is away does not end it.
        await until_async(lambda: registry.synced > 1)
        assert not leadership.lost.done()

    run(registry, steps)


def test_standbys_are_told_once_queries_are_answered() -> None:
    registry = ScriptedRegistry(Renewed(None))

    async def no_problems() -> list[str]:
        return []

    async def steps(leadership: Leadership) -> None:
        await until_async(lambda: registry.told)
        await leadership.tell_when_ready(no_problems)
        await until_async(lambda: registry.told[-1])
        assert registry.told[0] is False

    run(registry, steps)


def test_a_lease_that_is_given_back_is_not_renewed_and_allows_nothing() -> None:
    registry = ScriptedRegistry(AWAY)  # also if Redis is away

    async def steps(leadership: Leadership) -> None:
        await leadership.release()
        assert not leadership.may_act()
        await until_async(leadership.lost.done)
        assert registry.released == 1

    run(registry, steps)


def test_an_epoch_that_redis_has_forgotten_ends_the_lease() -> None:
    registry = ScriptedRegistry(Renewed(None))
    registry.refuses = [RegistryUnavailable("it is away")]

    async def steps(leadership: Leadership) -> None:
        leadership.take_epoch_above(12)
        assert "workers obey epoch 12" in await leadership.lost
        # The next one counts from 12.
        assert registry.reserved == [("supervisor", 5)]
        assert not leadership.may_act()

    run(registry, steps)


def test_who_does_not_lead_any_more_takes_no_epoch() -> None:
    registry = ScriptedRegistry(Renewed(None))
    registry.refuses = [NotLeader("another leads")]

    async def steps(leadership: Leadership) -> None:
        leadership.take_epoch_above(12)
        assert await leadership.lost == "another leads"
        assert registry.reserved == []

    run(registry, steps)
