"""Feedback that goes to the worker that answered its queries: what goes together, and what its senders are told."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import pytest

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import Observe, Observed
from clipper.errors import ProtocolViolation
from clipper.worker import forwarder
from clipper.worker.forwarder import FULL_PIECES, MAX_COMMANDS, Forwarder
from tests.event_loops import ShiftedLoop
from tests.waiting import TIMEOUT_S


def piece(number: int, label: bytes = b"1") -> Feedback:
    return Feedback("", query_id=number, label=label)


def numbers(command: Observe) -> list[int | None]:
    parts = [command.feedback, *(part.feedback for part in command.others)]
    return [each.query_id for part in parts for each in part]


def answered(command: Observe) -> Observed:
    """Each piece's outcome tells its number."""
    return Observed(tuple(Outcome(cause=str(number)) for number in numbers(command)))


class Peer:
    """The other worker: commands wait until they are answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[Observe, asyncio.Future[Observed]]] = []
        self.forwarder = Forwarder(self._ask, MAX_COMMANDS, lambda steps: deque(steps, maxlen=0))

    async def _ask(self, command: Observe) -> Observed:
        self.asked.append((command, asyncio.get_running_loop().create_future()))
        return await self.asked[-1][1]

    def send(self, *found: Feedback, application: str = "a") -> "asyncio.Future[Sequence[Outcome]]":
        told: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.forwarder.forward(application, found, lambda outcomes: told.done() or told.set_result(outcomes))
        return told

    async def commands(self, count: int) -> list[list[int | None]]:
        """The numbers that each command has brought, once there are so many, and the loop has had time for more."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.asked) < count:
                await asyncio.sleep(0.01)
        await asyncio.sleep(10.0)
        return [numbers(command) for command, _ in self.asked]

    def answer(self, index: int) -> None:
        command, reply = self.asked[index]
        reply.set_result(answered(command))


def run(scenario: Callable[[Peer], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(Peer())

    # Time passes when all wait.
    with asyncio.Runner(loop_factory=Leaping) as runner:
        runner.run(main())


class Leaping(ShiftedLoop):
    """Where nothing is ready, the clock goes to when something is due."""

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.shift_s += max(0.0, self._scheduled[0].when() - self.time())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def test_what_comes_in_one_turn_goes_at_once_and_together() -> None:
    async def scenario(peer: Peer) -> None:
        sent = [peer.send(piece(1)), peer.send(piece(2), piece(3), application="b"), peer.send(piece(4))]
        assert await peer.commands(1) == [[1, 2, 3, 4]]
        command, _ = peer.asked[0]
        assert [command.application, *(part.application for part in command.others)] == ["a", "b", "a"]
        peer.answer(0)
        told = [[each.cause for each in outcomes] for outcomes in await asyncio.gather(*sent)]
        assert told == [["1"], ["2", "3"], ["4"]]

    run(scenario)


def test_while_commands_are_under_way_more_gathers() -> None:
    async def scenario(peer: Peer) -> None:
        sent = [peer.send(piece(0))]
        assert await peer.commands(1) == [[0]]
        sent.append(peer.send(piece(1)))
        assert await peer.commands(2) == [[0], [1]]
        sent += [peer.send(piece(number)) for number in range(2, 100)]
        assert await peer.commands(2) == [[0], [1]], f"at most {MAX_COMMANDS} are under way"
        peer.answer(1)
        assert await peer.commands(3) == [[0], [1], [*range(2, 100)]]
        peer.answer(0)
        peer.answer(2)
        assert [outcome.cause for (outcome,) in await asyncio.gather(*sent)] == [str(number) for number in range(100)]

    run(scenario)


def test_the_second_command_waits_for_half_a_replys_time() -> None:
    async def scenario(peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        first = peer.send(piece(0))
        await peer.commands(1)  # which takes ten seconds
        peer.answer(0)
        await first
        sent = [peer.send(piece(1))]
        await asyncio.sleep(0.1)
        began_s = loop.time()
        for number in range(2, 6):
            sent.append(peer.send(piece(number)))
            await asyncio.sleep(0.5)
        while len(peer.asked) < 3:
            await asyncio.sleep(0.1)
        assert 4.5 < loop.time() - began_s < 6.0
        assert numbers(peer.asked[2][0]) == [2, 3, 4, 5]
        peer.answer(1)
        peer.answer(2)
        await asyncio.gather(*sent)

    run(scenario)


@pytest.mark.parametrize("error", [ConnectionRefusedError("gone"), TimeoutError(), ProtocolViolation("what?")])
def test_who_cannot_be_reached_costs_what_was_sent_and_nothing_later(error: Exception) -> None:
    async def scenario(peer: Peer) -> None:
        lost = [peer.send(piece(1)), peer.send(piece(2), piece(3))]
        await peer.commands(1)
        peer.asked[0][1].set_exception(error)
        for outcomes, count in zip(await asyncio.gather(*lost), (1, 2)):
            assert [each.error for each in outcomes] == ["unavailable"] * count
            assert "cannot be reached" in outcomes[0].cause
        kept = peer.send(piece(4))
        await peer.commands(2)
        peer.answer(1)
        assert [each.error for each in await kept] == [None]

    run(scenario)


def test_a_bug_costs_what_was_sent_and_leaves_nobody_waiting() -> None:
    async def scenario(peer: Peer) -> None:
        lost = [peer.send(piece(1)), peer.send(piece(2))]
        await peer.commands(1)
        peer.asked[0][1].set_exception(ZeroDivisionError())
        assert await asyncio.gather(*lost) == [[Outcome(error="internal_error", cause="ZeroDivisionError: ")]] * 2
        kept = peer.send(piece(3))
        await peer.commands(2)
        peer.answer(1)
        assert [each.error for each in await kept] == [None]

    run(scenario)


def test_an_older_worker_that_knows_of_one_part_only_is_no_success() -> None:
    async def scenario(peer: Peer) -> None:
        sent = [peer.send(piece(1)), peer.send(piece(2))]
        await peer.commands(1)
        peer.asked[0][1].set_result(Observed((Outcome(),)))
        for outcomes in await asyncio.gather(*sent):
            assert [each.error for each in outcomes] == ["unavailable"]
            assert "1 outcomes for 2 pieces" in outcomes[0].cause

    run(scenario)


def test_one_whose_sender_waits_no_longer_takes_nothing_from_the_others() -> None:
    async def scenario(peer: Peer) -> None:
        left, stays = peer.send(piece(1)), peer.send(piece(2))
        await peer.commands(1)
        left.cancel()
        await asyncio.wait([left])
        peer.answer(0)
        assert [each.cause for each in await stays] == ["2"]

    run(scenario)


@pytest.mark.parametrize("bound", ["pieces", "bytes"])
def test_a_command_is_bounded_and_a_list_stays_together(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bound == "bytes":
        monkeypatch.setattr(forwarder, "FULL_BYTES", FULL_PIECES)

    async def scenario(peer: Peer) -> None:
        label = b"1" if bound == "bytes" else b""
        sent = [peer.send(*(piece(number, label) for number in range(some))) for some in (1, 5000, 10, 1999, 1, 7)]
        for index in range(3):
            await peer.commands(index + 1)
            peer.answer(index)
        assert [len(outcomes) for outcomes in await asyncio.gather(*sent)] == [1, 5000, 10, 1999, 1, 7]
        assert [len(numbers(command)) for command, _ in peer.asked] == [5001, 2009, 8]

    run(scenario)
