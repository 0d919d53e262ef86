"""In processes of their own: a thread keeps what it has asked for."""

import subprocess
import sys

from clipper.worker.turns import SLICE_NS

ASK = """
import logging, os
from clipper.worker import turns

logging.basicConfig(level=logging.INFO, format="%(message)s")
os.nice(3)
before = turns.scheduling()
turns.ask_for_short_turns()
after = turns.scheduling()
print(before.runtime_ns, after.runtime_ns, after.nice, after.policy)
"""
# A number that is no system call's is refused by every kernel.
REFUSED = (
    "from clipper.worker import turns\nturns._SYSCALLS = dict.fromkeys(turns._SYSCALLS, turns._Numbers(315, 2**20))\n"
)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)


def test_turns_become_short_and_niceness_stays() -> None:
    before_ns, after_ns, niceness, policy = map(int, run(ASK).stdout.split())
    # A kernel that does not tell how long turns are has no use for the wish.
    assert after_ns == (SLICE_NS if before_ns else 0)
    assert (niceness, policy) == (3, 0)


def test_a_kernel_that_refuses_is_told_of_and_changes_nothing() -> None:
    refused = run(REFUSED + ASK.replace("turns.scheduling()", "turns.Attributes()"))
    assert "refuses short turns" in refused.stderr
