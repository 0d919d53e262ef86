"""``python -m clipper.worker --config JSON``: run one query worker until SIGTERM or a ``Drain``."""

import argparse
import asyncio
import logging
import signal
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from clipper.base.log_format import set_up
from clipper.base.malloc import keep_large_pieces_apart
from clipper.base.open_files import raise_limit
from clipper.control.address import parse_address
from clipper.control.identity import IdentityFile
from clipper.control.server import ControlServer
from clipper.worker.config import WorkerConfig
from clipper.worker.frontend.limits import most_connections
from clipper.worker.snapshot_file import SnapshotFile, epoch_of
from clipper.worker.worker import Worker

log = logging.getLogger("clipper.worker")


class PreciseLoop(uvloop.Loop):
    """uvloop with a finer clock: uvloop's own counts whole milliseconds, and many batches take less than one."""

    time = staticmethod(time.monotonic)


def main() -> int:
    parser = argparse.ArgumentParser(prog="clipper.worker", description="Answer queries. Started by the supervisor.")
    parser.add_argument("--config", required=True, help="a WorkerConfig as JSON")
    config = msgspec.json.decode(parser.parse_args().config, type=WorkerConfig)
    set_up(config.telemetry.log_format, config.telemetry.log_level)
    max_connections = most_connections(raise_limit())
    keep_large_pieces_apart()
    return uvloop.run(_run(config, max_connections), loop_factory=PreciseLoop)


async def _run(config: WorkerConfig, max_connections: int) -> int:
    stop = asyncio.Event()
    identity = IdentityFile(Path(config.identity)) if config.identity else None
    worker = Worker(config, stop.set, max_connections, identity)
    name, address = f"worker-{config.index}", f"{config.host}:{config.port}"
    try:
        worker.begin()
    except OSError as error:
        log.error("cannot listen on %(address)s: %(error)s", {"address": address, "error": error})
        return 1
    # Clipper's modules are imported by now. Otherwise Python as root would write bytecode into read-only artifacts.
    sys.dont_write_bytecode = True
    loop = asyncio.get_running_loop()
    kept = SnapshotFile(Path(config.kept), worker.answer) if config.kept else None
    before = None if kept is None else kept.read()
    control = ControlServer(worker.answer if kept is None else kept.answer, epoch_of(before), worker.turn)
    await control.listen(parse_address(config.control), identity)
    keeping = None if kept is None else loop.create_task(kept.run())
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # ^C in a terminal signals the whole process group; only the supervisor decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.info("%(worker)s answers on %(address)s", {"worker": name, "address": address})
    if kept is not None and before is not None:
        await kept.serve(before)
    await stop.wait()
    if keeping is not None:
        keeping.cancel()
    left = await worker.drain()
    log.info("%(worker)s has drained; %(count)d requests were given up", {"worker": name, "count": left})
    return 0


if __name__ == "__main__":
    sys.exit(main())
