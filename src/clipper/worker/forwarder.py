"""Passes feedback on to the worker that answered its queries. Pieces that come while it learns are sent together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import Observe, Observed, ObservePart
from clipper.errors import ClipperError

# Commands under way, each with a connection and, on both ends, a descriptor. With a store that acknowledges once a
# second, there would otherwise be as many as pieces come in a second.
MAX_COMMANDS = 2
# The same for feedback for which models may have to be asked.
MAX_ASKING_COMMANDS = 1
# With this many pieces, or this much in their labels, a command is full. A worker learns from it in some tenths of a
# second, and it is far below the bound of a message.
FULL_PIECES = 2_000
FULL_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Waiting:
    part: ObservePart
    outcomes: "asyncio.Future[Sequence[Outcome]]"


class Forwarder:
    """Passes feedback on to a worker.

    A command is answered when its last piece is learned, so feedback that may take longer has a forwarder of its own.

    A first piece goes at once. While a command is under way, the next begins after half of the time that the latest
    took, so that replies come evenly. A list that comes together stays together.
    """

    def __init__(self, ask: Callable[[Observe], Awaitable[Observed]], max_commands: int) -> None:
        """Make a forwarder. ``ask`` sends a command, and raises OSError or ClipperError."""
        self._ask = ask
        self._max_commands = max_commands
        self._waiting: deque[_Waiting] = deque()
        # The loop only keeps weak references to tasks.
        self._commands: set[asyncio.Task[None]] = set()
        self._is_gathering = False
        self._reply_s = 0.0

    async def forward(self, application: str, feedback: Sequence[Feedback]) -> Sequence[Outcome]:
        """Return an outcome for each piece, in order; ``unavailable`` for all if the worker does not answer."""
        outcomes: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(ObservePart(application, tuple(feedback)), outcomes))
        self._begin()
        return await outcomes

    def _begin(self) -> None:
        if self._waiting and not self._is_gathering and len(self._commands) < self._max_commands:
            self._is_gathering = True
            command = asyncio.get_running_loop().create_task(self._pass_on())
            self._commands.add(command)
            command.add_done_callback(self._end)

    def _end(self, command: asyncio.Task[None]) -> None:
        self._commands.discard(command)
        self._begin()

    async def _pass_on(self) -> None:
        if len(self._commands) > 1:
            await asyncio.sleep(self._reply_s / self._max_commands)
        self._is_gathering = False
        sent: list[_Waiting] = []
        pieces = size_bytes = 0
        while self._waiting and pieces < FULL_PIECES and size_bytes < FULL_BYTES:
            sent.append(self._waiting.popleft())
            pieces += len(sent[-1].part.feedback)
            size_bytes += sum(len(each.label or b"") for each in sent[-1].part.feedback)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        first, *others = (each.part for each in sent)
        try:
            outcomes = (await self._ask(Observe(first.application, first.feedback, tuple(others)))).outcomes
        except (OSError, ClipperError) as error:
            outcomes = _unavailable(f"cannot be reached: {error!r}", pieces)
        except Exception as error:  # noqa: BLE001  # a bug of ours: whoever waits gets it, and logs it
            for each in sent:
                if not each.outcomes.done():
                    each.outcomes.set_exception(error)
            return
        if len(outcomes) != pieces:
            outcomes = _unavailable(f"sent {len(outcomes)} outcomes for {pieces} pieces of feedback", pieces)
        self._reply_s = loop.time() - began_s
        remaining = iter(outcomes)
        for each in sent:
            own = list(islice(remaining, len(each.part.feedback)))
            if not each.outcomes.done():
                each.outcomes.set_result(own)


def _unavailable(why: str, pieces: int) -> tuple[Outcome, ...]:
    return (Outcome(error="unavailable", cause=f"the worker that answered the query {why}"),) * pieces
