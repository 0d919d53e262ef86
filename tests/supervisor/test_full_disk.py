"""A disk that fills while a server runs: a small one of the test's own, or a bound on what the worker may write."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.supervisor.keepers.disks import CHANGES, FEEDBACK, FULL_BYTES, folders_of, looked_at
from tests.supervisor.live_server import Server, with_application
from tests.waiting import until

SIZE_BYTES = 64 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """In memory. Only root may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def problems_of(server: Server, text: str) -> list[str]:
    status = server.call("GET", "/status")
    assert status["ready"]
    return [problem for problem in status["problems"] if text in problem]


def feed(server: Server) -> Any:
    query = server.predict("app", [1, 2])
    assert query["output"] == "one"
    return server.observe("app", query_id=query["query_id"], label="one")


def fill(place: Path, left_bytes: int) -> None:
    """Leave so much room on it."""
    with (place / "filling").open("ab") as file:
        while (free := os.statvfs(place).f_bfree * os.statvfs(place).f_frsize) > left_bytes:
            file.write(bytes(min(1 << 20, free - left_bytes)))
            file.flush()


if os.geteuid() == 0:

    @pytest.mark.machine
    @pytest.mark.long
    def test_a_disk_that_fills_is_a_problem_and_one_with_room_again_is_none(small_disk: Path) -> None:
        server = Server(small_disk / "home")
        try:
            with_application(server)
            assert feed(server).is_success and problems_of(server, "disk") == []
            fill(small_disk, 5 * FULL_BYTES)
            told = until(lambda: problems_of(server, "disk"))[0]
            assert told.startswith(f"the disk of {server.home} is nearly full, ") and "of 64 MiB are free" in told
            assert told.endswith(f": once it is full, {CHANGES}, and {FEEDBACK}")
            fill(small_disk, 0)
            until(lambda: problems_of(server, f"the disk of {server.home} is full"))
            # Feedback and changes that cannot be stored are refused, and status gives the store's error.
            until(lambda: feed(server).status_code == 503)
            assert "refuses feedback, since it cannot be stored" in until(lambda: problems_of(server, "worker 0"))[0]
            assert server.ask("DELETE", "/applications/app").status_code == 503
            free = f'clipper_disk_free_bytes{{path="{server.home}"}} '
            assert int(float(server.metrics.partition(free)[2].partition("\n")[0])) < FULL_BYTES
            (small_disk / "filling").unlink()
            until(lambda: feed(server).is_success)
            until(lambda: problems_of(server, "disk") == problems_of(server, "worker 0") == [])
        finally:
            server.clean_up()


def test_feedback_that_cannot_be_stored_is_a_problem_whatever_the_cause(server: Server) -> None:
    """As with a quota, of which the disk's free space says nothing."""
    with_application(server)
    assert feed(server).is_success
    (pid,) = server.worker_pids
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    until(lambda: feed(server).status_code == 503)
    told = until(lambda: problems_of(server, "worker 0 refuses feedback, since it cannot be stored: "))[0]
    assert not told.endswith(": ")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    until(lambda: feed(server).is_success)
    until(lambda: problems_of(server, "worker 0") == [])


def test_folders_of_one_disk_are_told_together(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
    folders = folders_of(home, f"sqlite:{other / 'selection.sqlite3'}")
    assert folders == ((home, CHANGES), (other, FEEDBACK))
    (disk,) = looked_at(folders)
    assert (disk.path, disk.needs) == (str(home), (CHANGES, FEEDBACK)) and 0 < disk.free_bytes < disk.size_bytes
    assert folders_of(home, "redis://h/0") == ((home, CHANGES),)
    assert looked_at([(home / "gone", CHANGES)]) == ()
