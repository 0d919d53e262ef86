"""Readings of a process."""

import mmap
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from benchmarks.harness import in_use
from benchmarks.soak.processes import established, read
from tests.waiting import until


def apart(look: Callable[[], None]) -> None:
    """Run it in a process of its own: in that of the tests, servers of other tests may close connections meanwhile."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
        own.submit(look).result()


def memory_descriptors_and_threads() -> None:
    before, started = read(os.getpid(), 1.0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    # Memory of its own: what others have freed may be enough for anything else.
    kept = mmap.mmap(-1, 8 << 20)
    kept.write(b"x" * len(kept))
    with tempfile.TemporaryFile():
        after, started_again = read(os.getpid(), 2.0)
    stop.set()
    thread.join()
    assert (before.at_s, after.at_s) == (1.0, 2.0)
    assert started == started_again
    assert after.descriptors == before.descriptors + 1
    assert after.threads == before.threads + 1
    assert after.rss - before.rss > len(kept) / 2
    assert after.uss <= after.pss <= after.rss


def test_memory_descriptors_and_threads_of_a_process() -> None:
    apart(memory_descriptors_and_threads)


def connections_of_clients() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def descriptors() -> int:
            return read(os.getpid(), 0.0, established(port))[0].descriptors

        before = descriptors()
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
            # The client's own end is of another port.
            assert descriptors() == before + 1
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
            # Whoever does not close what its client has closed leaks it.
            assert descriptors() == before + 2


def test_connections_of_clients_are_not_counted_while_they_are_open() -> None:
    apart(connections_of_clients)


def test_workers_and_containers_of_the_server_tell_what_they_have_in_use(tmp_path: Path) -> None:
    program = "from benchmarks.harness import in_use\nin_use.begin(sys.argv[2])\ninput()"
    for role in ("clipper.worker", "clipper.model.runtime", "clipper.supervisor"):
        command = [sys.executable, "-c", f"import sys\n{program}", role, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
            if role != "clipper.supervisor":
                until(lambda pid=process.pid: in_use.ask(tmp_path, pid)[0] > 10_000)
            else:  # SIGUSR2 would end it
                assert in_use.ask(tmp_path, process.pid) == (0, 0)
            process.communicate(b"\n")
        assert process.returncode == 0


def test_one_that_has_gone() -> None:
    none = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    with pytest.raises(OSError, match=str(none)):
        read(none, 0.0)
