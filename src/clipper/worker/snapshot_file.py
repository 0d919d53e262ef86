"""Keeps the snapshot in force in a file of the node. A worker that restarts without a supervisor serves by it.

A supervisor would send a worker the newest snapshot at its start. Without a supervisor, the kept snapshot is the
newest, since only a supervisor changes anything.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from clipper.base.whole_files import write_whole
from clipper.control.difference import EPOCH_BITS, Holding
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    Framer,
    decode_command,
    encode,
)
from clipper.errors import ProtocolViolation

log = logging.getLogger(__name__)

# The pause after a write, in times of its duration: a snapshot of thousands of models has megabytes. If the worker dies
# before it has written a change, the change is lost only if no supervisor knows it.
PAUSE_PER_WRITE = 10.0


class SnapshotFile:
    """Wraps a worker's ``answer``, and keeps the snapshots that the worker has applied."""

    def __init__(self, path: Path, answer: Callable[[AnyCommand], Awaitable[AnyReply]]) -> None:
        self._path = path
        self._answer = answer
        # The snapshot as it was sent: after a restart, the paths of users' own policies are found anew.
        self._held = Holding()
        self._newest: Apply | None = None
        self._has_changed = asyncio.Event()

    def read(self) -> Apply | None:
        """Return the snapshot in the file; None if there is none, or it cannot be used."""
        try:
            commands = [decode_command(body) for body in Framer().feed(self._path.read_bytes())]
        except FileNotFoundError:
            return None
        except (OSError, ProtocolViolation) as error:
            log.error("this worker's kept snapshot cannot be read: %(error)s", {"error": error})
            return None
        return next((command for command in commands if isinstance(command, Apply)), None)

    async def answer(self, command: AnyCommand) -> AnyReply:
        reply = await self._answer(command)
        if isinstance(command, Apply | ApplyDifference) and isinstance(reply, Applied):
            if isinstance(command, Apply):
                difference = self._held.difference_to(command.snapshot)
            else:
                difference = command.difference
            # If a newer snapshot is in force, its own reply counts.
            if not reply.needs_whole and reply.generation == difference.generation and self._held.takes(difference):
                self._held.follow(difference)
                before = None if self._newest is None else self._newest.tls
                self._newest = Apply(self._held.snapshot(), command.tls or before, command.is_stopping)
                self._has_changed.set()
        return reply

    async def serve(self, kept: Apply) -> None:
        """Let the worker serve by the kept snapshot, unless a supervisor has already sent one."""
        epoch = epoch_of(kept)
        try:
            await self.answer(kept)
        except Exception:  # any error: a file that only a supervisor can replace must not cause a crash loop
            log.exception("this worker's kept snapshot, of epoch %(epoch)d, cannot be applied", {"epoch": epoch})
        else:
            log.info("this worker serves again by its kept snapshot, of epoch %(epoch)d", {"epoch": epoch})

    async def run(self) -> None:
        """Write each change of the snapshot, until cancelled."""
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            began_s = asyncio.get_running_loop().time()
            try:
                await asyncio.to_thread(self._write)
            except OSError as error:
                log.error("this worker's snapshot cannot be kept: %(error)s", {"error": error})
            await asyncio.sleep(PAUSE_PER_WRITE * (asyncio.get_running_loop().time() - began_s))

    def _write(self) -> None:
        assert self._newest is not None
        write_whole(self._path, [encode(self._newest)])


def epoch_of(kept: Apply | None) -> int:
    """Return the epoch of the supervisor that sent the snapshot; 0 if there is no snapshot."""
    return 0 if kept is None else kept.snapshot.generation >> EPOCH_BITS
