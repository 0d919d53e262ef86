"""What /proc says."""

import subprocess
import sys

from clipper.processes import proc
from waiting import until

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
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        # Its own 0.2 s, and those of its child; the kernel counts in hundredths.
        until(lambda: proc.session_computed_s(leader.pid) >= 0.35)
        assert proc.session_computed_s(leader.pid) < 5.0
        leader.communicate(b"")
    # Its child ends a little later.
    until(lambda: proc.session_computed_s(leader.pid) == 0.0)
