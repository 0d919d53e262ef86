"""Readings of /proc."""

import os
import subprocess
import sys
import time
from pathlib import Path

from clipper.base.processes import proc
from clipper.base.processes.census import Census
from tests.started_processes import ODD_NAMES, oddly_named
from tests.waiting import until

COMPUTES = """
import os, sys, time
def compute(seconds):
    while time.process_time() < seconds:
        pass
compute(0.2)
if os.fork() == 0:
    compute(0.2)
    print("done", flush=True)
sys.stdin.read()
"""


def test_what_a_session_has_computed_is_that_of_all_its_processes() -> None:
    began_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        # Its own 0.2 s, and those of its child; the kernel counts in hundredths.
        until(lambda: proc.session_busy_s(leader.pid) >= 0.35)
        assert proc.session_busy_s(leader.pid) <= 2 * (time.monotonic() - began_s) + 0.1  # of two processes
        leader.communicate(b"")
    # Its child ends a little later.
    until(lambda: proc.session_busy_s(leader.pid) == 0.0)


def test_a_process_is_busy_while_it_waits_for_a_processor() -> None:
    def computed_s(pid: int) -> float:
        fields = proc.stat_fields(pid)
        assert fields is not None
        return sum(int(fields[index]) for index in proc.CPU_TICKS) / proc.TICKS_PER_S

    one = next(iter(os.sched_getaffinity(0)))
    spins = f"import os; os.sched_setaffinity(0, [{one}]); [None for _ in iter(int, 1)]"
    spinning = [subprocess.Popen([sys.executable, "-c", spins], start_new_session=True) for _ in range(2)]
    try:
        pid = spinning[0].pid
        # Each waits half of the time. The processor time is read later, and counts in hundredths.
        until(lambda: proc.session_busy_s(pid) - computed_s(pid) >= 0.2)
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def test_a_process_of_any_name_is_read_as_what_it_is() -> None:
    with oddly_named() as found:
        assert len(found) == len(ODD_NAMES)
        for pid, zombie in found:
            assert proc.start_time(pid) == int(proc_fields(pid)[21])
            assert proc.start_time(zombie) is None
            assert (proc.user_of(pid), proc.parent_of(pid)) == (os.geteuid(), os.getpid())
            assert proc.parent_of(zombie) == pid
            assert proc.proportional_bytes(pid) > 0
        # Those who look at every process of the machine get past them.
        Census({os.geteuid()}).look()
        assert proc.session_busy_s(os.getsid(0)) >= 0.0


def proc_fields(pid: int) -> list[bytes]:
    before, _, after = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
    return [str(pid).encode(), before, *after.split()]
