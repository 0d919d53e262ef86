"""Carries out a load: one run, or those of a sweep."""

import asyncio
import gc
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from random import Random

from clipper.errors import InvalidArgument, Unavailable
from clipper.load.arrivals import Arrivals, due_times_s
from clipper.load.inputs import Requests
from clipper.load.records import Records
from clipper.load.report import Found, Run, Second, verdict
from clipper.load.sender import Sender, Target
from clipper.load.sweep import Sweep

# Time after the SLO, by which Clipper answers, for the way back and for a server that hangs for a while.
PATIENCE_S = 5.0
# Lead before the first query, so that it is not late because the run is still being set up.
_LEAD_S = 0.02
# Pause between the runs of a sweep, so that one does not affect the next.
_PAUSE_S = 0.5
# Open files besides connections: standard streams, the loop's own, the timer, files of libraries.
_OTHER_FILES = 64

# The collector runs once per hundred thousand new objects that were not freed.
_GC_THRESHOLDS = (100_000, 20, 20)

Watch = Callable[[float, float, Second | None], None]


@dataclass(frozen=True, slots=True)
class Plan:
    target: Target
    requests: Requests
    arrivals: Arrivals
    rate_per_s: float
    duration_s: float
    slo_ms: float
    max_connections: int


@dataclass(frozen=True, slots=True)
class Done:
    """The runs of a load. ``found`` is None unless a sweep came to its end."""

    runs: tuple[Run, ...]
    interrupted: bool
    found: Found | None = None


def allow_files(max_connections: int) -> None:
    """Raise the process's limit of open files as needed.

    Raises:
        InvalidArgument: the machine does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _OTHER_FILES
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise InvalidArgument(
            f"{max_connections} connections take {wanted} open files, and this process may have {hard}: "
            "give fewer --connections, or raise the limit (ulimit -Hn)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Runner:
    """Runs a load on the main thread's loop. SIGINT and SIGTERM end it, and the measurements so far are returned."""

    def __init__(self, plan: Plan, watch: Watch) -> None:
        """
        Args:
            watch: called each second with the rate, the elapsed time, and the latest finished second.
        """
        self._plan, self._watch = plan, watch
        self._random = Random()
        self._sender: Sender | None = None
        self._interrupted = asyncio.Event()

    async def one(self) -> Done:
        with self._watched():
            run = await self._run(self._plan)
            return Done((run,), self._interrupted.is_set())

    async def sweep(self) -> Done:
        search = Sweep(self._plan.rate_per_s)
        runs: list[Run] = []
        with self._watched():
            while search.next_per_s is not None:
                try:
                    run = await self._run(replace(self._plan, rate_per_s=search.next_per_s))
                except Unavailable:
                    if not runs:
                        raise
                    return Done(tuple(runs), interrupted=True)  # the server went away: report the runs so far
                runs.append(run)
                if self._interrupted.is_set():
                    return Done(tuple(runs), interrupted=True)
                search.tell(verdict(run))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S):
                        await self._interrupted.wait()
        found = Found(search.kept_per_s, search.too_high_per_s, search.limited_by_sender)
        return Done(tuple(runs), interrupted=False, found=found)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Signals end the run. The collector rarely runs: sending makes no cycles, only failed dials do."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        usual = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        try:
            yield
        finally:
            gc.set_threshold(*usual)
            gc.unfreeze()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupted.set()
        if self._sender is not None:
            self._sender.stop()

    async def _run(self, plan: Plan) -> Run:
        """Carry out one run.

        Raises:
            Unavailable: no connection could be opened at the beginning.
        """
        records = Records(plan.slo_ms / 1e3)
        sender = Sender(
            plan.target,
            plan.requests,
            due_times_s(plan.arrivals, plan.rate_per_s, plan.duration_s, self._random),
            records,
            max_connections=plan.max_connections,
            answer_within_s=plan.slo_ms / 1e3 + PATIENCE_S,
        )
        try:
            await sender.connect()
        except OSError as error:
            sender.close()
            host, port = plan.target[:2]
            raise Unavailable(f"cannot connect to {host}:{port} ({error}): is the server still running?") from error
        self._sender = sender
        began_s = time.monotonic() + _LEAD_S
        records.begin(began_s)
        clock = _Clock(began_s, plan.duration_s)
        ticking = asyncio.create_task(self._tick(plan, records, clock))
        try:
            if not self._interrupted.is_set():
                await sender.run(began_s)
        finally:
            sender.close()
            ticking.cancel()
            self._sender = None
        # A run is not shorter because its last query was answered early.
        elapsed_s = clock.elapsed_s() if self._interrupted.is_set() else plan.duration_s
        return records.run(plan.rate_per_s, elapsed_s, clock.cpu_share(), sender)

    async def _tick(self, plan: Plan, records: Records, clock: "_Clock") -> None:
        while True:
            await asyncio.sleep(1.0)
            clock.cpu_share()
            records.close_seconds()
            self._watch(plan.rate_per_s, clock.elapsed_s(), records.last_second())


class _Clock:
    """How long queries have been becoming due, and how busy that kept this process."""

    def __init__(self, began_s: float, duration_s: float) -> None:
        self._began_s, self._duration_s = began_s, duration_s
        self._seen_s, self._cpu_seen_s = time.monotonic(), time.process_time()
        self._share: float | None = None

    def elapsed_s(self) -> float:
        return min(max(0.0, time.monotonic() - self._began_s), self._duration_s)

    def cpu_share(self) -> float:
        """The process's share of one processor, until no more queries become due: then it only waits."""
        if self._share is not None:
            return self._share
        share = (time.process_time() - self._cpu_seen_s) / max(1e-9, time.monotonic() - self._seen_s)
        if self.elapsed_s() >= self._duration_s:
            self._share = share
        return share
