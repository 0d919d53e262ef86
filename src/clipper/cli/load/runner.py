"""Carries out a load: one run, or the runs of a sweep. It imports numpy and uvloop."""

import asyncio
import gc
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from urllib.parse import quote

import uvloop

from clipper.base.http1 import Address
from clipper.cli.load.arrivals import due_times_s
from clipper.cli.load.inputs import Head, Requests, Sample, read_requests
from clipper.cli.load.records import Records
from clipper.cli.load.report import Found, LoadedApplication, LoadOptions, Report, Run, Watch, verdict
from clipper.cli.load.sender import Sender, Target
from clipper.cli.load.sweep import Sweep
from clipper.client.http_api import HttpApi
from clipper.errors import ClipperError, InvalidArgument, RequestError, Unavailable

# No load has so many queries, so the input of the first query is not yet in the cache.
_FIRST_NUMBER = 10**12
# The wait beyond the SLO, by which Clipper answers: for the way back, and for a server that hangs for a while.
PATIENCE_S = 5.0
# The lead before the first query, so that it is not late because the run is still being set up.
_LEAD_S = 0.02
# The pause between the runs of a sweep, so that a run does not affect the next one.
_PAUSE_S = 0.5
# Open files besides connections: standard streams, those of the event loop, the timer, and files of libraries.
_OTHER_FILES = 64

# The collector runs once per hundred thousand new objects that were not freed.
_GC_THRESHOLDS = (100_000, 20, 20)


def allow_files(max_connections: int) -> None:
    """Raise the process's limit of open files as needed. Raises InvalidArgument if the machine does not allow that."""
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

    def __init__(
        self, loaded: LoadedApplication, options: LoadOptions, address: Address, requests: Requests, watch: Watch
    ) -> None:
        self._loaded, self._options, self._address, self._requests = loaded, options, address, requests
        self._watch = watch
        self._random = Random()
        self._sender: Sender | None = None
        self._interrupted = asyncio.Event()

    async def one(self) -> Report:
        with self._watched():
            run = await self._run(self._options.rate_per_s)
            return self._report([run], is_interrupted=self._interrupted.is_set())

    async def sweep(self) -> Report:
        search = Sweep(self._options.rate_per_s)
        runs: list[Run] = []
        with self._watched():
            while search.next_per_s is not None:
                try:
                    run = await self._run(search.next_per_s)
                except Unavailable:
                    if not runs:
                        raise
                    return self._report(runs, is_interrupted=True)  # the server went away
                runs.append(run)
                if self._interrupted.is_set():
                    return self._report(runs, is_interrupted=True)
                search.tell(verdict(run))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S):
                        await self._interrupted.wait()
        found = Found(search.kept_per_s, search.too_high_per_s, search.limited_by_sender)
        return self._report(runs, is_interrupted=False, found=found)

    def _report(self, runs: Sequence[Run], *, is_interrupted: bool, found: Found | None = None) -> Report:
        loaded, options = self._loaded, self._options
        return Report(
            application=loaded.application,
            url=f"{self._address.url}{_path(loaded.application)}",
            arrivals=options.arrivals,
            inputs=self._requests.what,
            slo_ms=loaded.slo_ms,
            slo_of=loaded.slo_of,
            max_connections=options.max_connections,
            interrupted=is_interrupted,
            runs=tuple(runs),
            found=found,
        )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Let signals end the run, and the collector run rarely: sending makes no cycles, only failed dials do."""
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

    async def _run(self, rate_per_s: float) -> Run:
        """Carry out a run. Raises Unavailable if no connection could be opened at the beginning."""
        options, address, slo_s = self._options, self._address, self._loaded.slo_ms / 1e3
        records = Records(slo_s)
        sender = Sender(
            Target(address.host, address.port, self._loaded.tls.context if address.is_tls else None),
            self._requests,
            due_times_s(options.arrivals, rate_per_s, options.duration_s, self._random),
            records,
            max_connections=options.max_connections,
            answer_within_s=slo_s + PATIENCE_S,
        )
        try:
            await sender.connect()
        except OSError as error:
            sender.close()
            raise Unavailable(
                f"cannot connect to {address.authority} ({error}): is the server still running?"
            ) from error
        self._sender = sender
        began_s = time.monotonic() + _LEAD_S
        records.begin(began_s)
        clock = _Clock(began_s, options.duration_s)
        ticking = asyncio.create_task(self._tick(rate_per_s, records, clock))
        try:
            if not self._interrupted.is_set():
                await sender.run(began_s)
        finally:
            sender.close()
            ticking.cancel()
            self._sender = None
        # A run lasts its full duration, even if its last query was answered early.
        elapsed_s = clock.elapsed_s() if self._interrupted.is_set() else options.duration_s
        return records.run(rate_per_s, elapsed_s, clock.cpu_share(), sender.peak_connections, sender.cut_off)

    async def _tick(self, rate_per_s: float, records: Records, clock: "_Clock") -> None:
        while True:
            await asyncio.sleep(1.0)
            clock.cpu_share()
            records.close_seconds()
            self._watch(rate_per_s, clock.elapsed_s(), records.last_second())


class _Clock:
    """A clock that tells for how long queries have become due, and how busy that kept this process."""

    def __init__(self, began_s: float, duration_s: float) -> None:
        self._began_s, self._duration_s = began_s, duration_s
        self._seen_s, self._cpu_seen_s = time.monotonic(), time.process_time()
        self._share: float | None = None

    def elapsed_s(self) -> float:
        return min(max(0.0, time.monotonic() - self._began_s), self._duration_s)

    def cpu_share(self) -> float:
        """Measure the process's share of a processor while queries become due; after that it only waits."""
        if self._share is not None:
            return self._share
        share = (time.process_time() - self._cpu_seen_s) / max(1e-9, time.monotonic() - self._seen_s)
        if self.elapsed_s() >= self._duration_s:
            self._share = share
        return share


def carry_out(loaded: LoadedApplication, options: LoadOptions, watch: Watch) -> Report:
    """Send one query to see whether it is answered, then all of them.

    Raises ClipperError if the inputs cannot be read or are not the application's, or if the server does not answer.
    """
    allow_files(options.max_connections)
    address = Address.parse(loaded.query_url)
    path = _path(loaded.application)
    head = Head(address.authority, address.path + path, options.api_key)
    if options.inputs is not None:
        requests: Requests = read_requests(options.inputs, head, loaded.input_type)
    elif loaded.input_type is not None:
        requests = Sample(head, loaded.input_type, options.width, Random())
    else:
        raise InvalidArgument("random inputs need the application's input type: give a file of inputs")
    # Thousands of queries may all be wrong in the same way: report the fault of the first.
    api = HttpApi(address.url, lambda: options.api_key, loaded.tls, is_management=False)
    try:
        api.call("POST", path, requests.of(_FIRST_NUMBER).partition(b"\r\n\r\n")[2], loaded.slo_ms / 1e3 + PATIENCE_S)
    except (RequestError, Unavailable):
        raise
    except ClipperError:
        pass  # the model failed, or was late: the load measures that
    finally:
        api.close()
    runner = Runner(loaded, options, address, requests, watch)

    async def run() -> Report:
        return await (runner.sweep() if options.sweep else runner.one())

    return uvloop.run(run())


def _path(application: str) -> str:
    return f"/{quote(application, safe='')}/predict"
