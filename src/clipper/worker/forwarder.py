"""Passes feedback on to the worker that answered its queries. Pieces that come while it learns are sent together."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from clipper.control.feedback import Feedback, Outcome
from clipper.control.messages import Observe, Observed, ObservePart
from clipper.errors import ClipperError, StoreUnavailable, Unavailable

log = logging.getLogger(__name__)

# The most commands under way. Each takes a connection, with a descriptor at both ends. If the store acknowledges once a
# second, there would otherwise be a command for each piece that comes in that second.
MAX_COMMANDS = 2
# The same for feedback that may have to ask models first.
MAX_ASKING_COMMANDS = 1
# A command is full with this many pieces, or this many bytes of labels. A worker learns from that in some tenths of a
# second, and the command stays far below the bound of a message.
FULL_PIECES = 2_000
FULL_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Waiting:
    part: ObservePart
    tell: Callable[[Sequence[Outcome]], object]


class Forwarder:
    """Passes feedback on to a worker.

    A command is answered when its last piece is learned, so feedback that may take longer has a forwarder of its own.

    A first piece goes at once. While a command is under way, the next begins after half of the latest reply time, so
    that replies come evenly. A list stays in one command.
    """

    def __init__(
        self,
        ask: Callable[[Observe], Awaitable[Observed]],
        max_commands: int,
        do: Callable[[Iterator[None]], None],
    ) -> None:
        """Make a forwarder.

        Args:
            ask: sends a command, and raises OSError or ClipperError.
            do: does work in short steps, so that a reply on thousands of pieces holds up nothing else.
        """
        self._do = do
        self._ask = ask
        self._max_commands = max_commands
        self._waiting: deque[_Waiting] = deque()
        # The loop only keeps weak references to tasks.
        self._commands: set[asyncio.Task[None]] = set()
        self._is_gathering = False
        self._reply_s = 0.0

    def forward(
        self, application: str, feedback: Sequence[Feedback], tell: Callable[[Sequence[Outcome]], object]
    ) -> None:
        """Pass feedback on, and ``tell`` an outcome for each piece, in order.

        The outcome of all is ``unavailable`` if the worker does not answer, and ``store_unavailable`` if it can only be
        reached through a store that is away.
        """
        self._waiting.append(_Waiting(ObservePart(application, tuple(feedback)), tell))
        self._begin()

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
        except StoreUnavailable as error:
            outcomes = (Outcome(error=error.code, cause=str(error)),) * pieces
        except (OSError, ClipperError) as error:
            outcomes = (unavailable(f"cannot be reached: {error!r}"),) * pieces
        except Exception as error:  # a bug in Clipper: the waiting senders get an outcome
            log.exception("failed to pass feedback on to another worker")
            outcomes = (Outcome(error=ClipperError.code, cause=f"{type(error).__name__}: {error}"),) * pieces
        if len(outcomes) != pieces:
            outcomes = (unavailable(f"sent {len(outcomes)} outcomes for {pieces} pieces of feedback"),) * pieces
        self._reply_s = loop.time() - began_s
        self._do(_tell(sent, outcomes))


def _tell(sent: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> Iterator[None]:
    remaining = iter(outcomes)
    for each in sent:
        each.tell(list(islice(remaining, len(each.part.feedback))))
        yield


def unavailable(why: str) -> Outcome:
    return Outcome(error=Unavailable.code, cause=f"the worker that answered the query {why}")
