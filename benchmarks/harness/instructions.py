"""Instructions that a worker executes for a query, as callgrind counts them.

They vary less than processor times, in which two servers of one install differ by up to a fifth. Three counts of one
commit at different loads of the machine were within 5 % of each other, and within 16 % for 784 floats: the batches that
form depend on the time that passes. The kernel's instructions are not in them.
"""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

from benchmarks.harness import at_start, pairs, servers, wrk

SECONDS, WARM_UP_SECONDS = 8, 3
# Under callgrind a query takes fifty times as long, and a default would cost less than an answer.
SLO_MS = 20_000


def query_instructions(commands: Sequence[str], cases: Mapping[str, pairs.Case]) -> dict[str, list[float]]:
    """Return the worker's instructions for a query, for each case: one number for each command, the ``clipper`` of an
    install.
    """
    found: dict[str, list[float]] = {name: [] for name in cases}
    [faketime] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    for command in commands:
        with (
            tempfile.TemporaryDirectory(prefix="clipper-counts-") as folder,
            at_start.at_start(command, "counted", folder, str(faketime)),
            mock.patch.object(tempfile, "tempdir", folder),
            servers.clipper(command=command) as server,
        ):
            pairs.create_applications(server, {case.application for case in cases.values()}, SLO_MS)
            worker = Worker(server.process_ids()[1], Path(folder))
            # Work that other processes ask for by the machine's time comes far too often beside the queries.
            worker.begin()
            time.sleep(SECONDS)
            without_queries = worker.end()
            for name, case in cases.items():
                url = server.url(case.application)
                wrk.run(url, case.script, connections=case.connections, seconds=WARM_UP_SECONDS)
                worker.begin()
                load = wrk.run(url, case.script, connections=case.connections, seconds=SECONDS)
                found[name].append((worker.end() - without_queries) / load.requests)
    return found


class Worker:
    """A worker under callgrind, which writes its counts into ``folder``."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder, self._dumps = pid, folder, 0

    def begin(self) -> None:
        """Count from now on."""
        self._control("--instr=on")
        self._control("--zero")

    def end(self) -> int:
        """Return the instructions since ``begin``."""
        self._control("--dump")
        self._dumps += 1
        dump = self._folder / f"counts.{self._pid}.{self._dumps}"
        servers.wait_until(lambda: dump.exists() and "\nsummary: " in dump.read_text(), f"callgrind to write {dump}")
        self._control("--instr=off")
        return int(dump.read_text().partition("\nsummary: ")[2].split()[0])

    def _control(self, action: str) -> None:
        subprocess.run(["callgrind_control", action, str(self._pid)], check=True, capture_output=True)
