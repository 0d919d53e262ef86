"""A container does without limits that the kernel refuses."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipper.base.processes import limits
from clipper.base.processes.limits import CONTAINER_NICENESS


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOENT, errno.EAGAIN, errno.EACCES])
def test_a_group_of_fixed_weight_costs_a_container_only_its_weight(
    refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel's root group, for one, which what init starts may be in: it is not to be had on every machine.
    def refuse(path: Path, text: str) -> int:
        raise OSError(refusal, os.strerror(refusal), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as child:
        limits.apply(child.pid, None, None)
        # Whatever runs the tests may be nicer still.
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == max(CONTAINER_NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        assert os.sched_getaffinity(child.pid) == set(limits.machine_cores())
        child.kill()


@pytest.mark.parametrize(("more", "least"), [(0, CONTAINER_NICENESS), (12, 12), (19, 19)])
def test_a_container_is_never_less_nice_than_what_starts_it(more: int, least: int) -> None:
    """Only root may make a process less nice, so that no model of another user's nice server could start."""
    command = ["nice", "-n", str(more), sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        before = os.getpriority(os.PRIO_PROCESS, child.pid)
        limits.apply(child.pid, None, None)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == max(CONTAINER_NICENESS, before) >= least
        child.kill()


def test_a_container_that_is_gone_needs_no_bound() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        limits.apply(child.pid, 2**30, None)
