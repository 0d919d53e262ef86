import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.base.processes.census import Census, CensusEntry, disk_usage, memory_bytes
from clipper.base.processes.excess import Usage
from clipper.base.processes.marks import MARK
from clipper.base.trees import MAX_DEPTH, remove_tree
from tests.descriptors import no_descriptors
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.machine

# A parent and its child share 100 MiB, and say so.
SHARES = "import os, sys; kept = b'x' * (100 << 20); os.fork() and print('up', flush=True); sys.stdin.read()"


def test_processes_are_found_by_mark_and_what_they_share_counts_once(tmp_path: Path) -> None:
    mark = f"{tmp_path}/run/m@1-1"
    process = subprocess.Popen(
        [sys.executable, "-c", SHARES], env={MARK: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    with process, process.stdin, process.stdout:
        process.stdout.readline()
        census = Census({os.geteuid()})
        # It looks at each process anew, but reads marks of those that it has seen only once.
        found = [census.look()[mark] for _ in range(2)][-1]
        assert process.pid in {each.pid for each in found} and len(found) == 2
        assert [each.threads for each in found] == [1, 1]
        resident = sum(each.resident_bytes for each in found)
        assert resident > 200 << 20
        assert 100 << 20 < memory_bytes(found, 1) < 150 << 20
        # Not looked at closely as long as the most that it can be is within the bound.
        assert memory_bytes(found, resident) == memory_bytes(found, None) == resident
        process.stdin.close()
    until(lambda: mark not in census.look())
    # One that has gone meanwhile has nothing.
    assert memory_bytes([CensusEntry(process.pid, 1, 5), CensusEntry(process.pid, 1, 5)], 1) == 0


def test_a_folder_is_counted_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "out").symlink_to("/")
    found = disk_usage(tmp_path, 100)
    assert found.files == 3 and not found.is_too_deep
    assert 100_000 <= found.disk_bytes < 200_000
    assert disk_usage(tmp_path / "nowhere", 100) == Usage()


def test_a_file_that_goes_during_the_count_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcdef":
        (tmp_path / name).write_bytes(b"x" * 4096)
    gone = iter("abcdef")
    real_scandir = os.scandir

    class Going:
        """Removes each file before it is looked at, but the last two."""

        def __init__(self, folder: Path) -> None:
            self._entries = real_scandir(folder)

        def __enter__(self) -> "Iterator[os.DirEntry[str]]":
            return self._each()

        def _each(self) -> "Iterator[os.DirEntry[str]]":
            for number, entry in enumerate(sorted(self._entries, key=lambda entry: entry.name)):
                if number < 4:
                    (tmp_path / next(gone)).unlink()
                yield entry

        def __exit__(self, *_: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Going)
    found = disk_usage(tmp_path, 100)
    assert found.files == 6
    assert found.disk_bytes >= 2 * 4096


def test_without_descriptors_nothing_passes_for_little(tmp_path: Path) -> None:
    mark = f"{tmp_path}/run/m@1-1"
    with subprocess.Popen([sys.executable, "-c", SHARES], env={MARK: mark}, stdin=subprocess.PIPE) as process:
        census = Census({os.geteuid()})
        until(lambda: len(census.look().get(mark, [])) == 2)
        found = census.look()[mark]
        for look in (Census({os.geteuid()}).look, lambda: memory_bytes(found, 1), lambda: disk_usage(tmp_path, 10)):
            with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
                look()
        # Nor is a look remembered that saw nothing.
        assert len(census.look()[mark]) == 2
        assert process.stdin is not None
        process.stdin.close()


def test_a_pathless_entry_is_counted_and_endless_nesting_is_told(tmp_path: Path) -> None:
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_DEPTH - 1):
        os.mkdir("d" * 200, dir_fd=above)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    with os.fdopen(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=above), "wb") as file:
        file.write(b"x" * 1_000_000)
    found = disk_usage(tmp_path, 1000)
    assert (found.files, found.is_too_deep) == (MAX_DEPTH, False) and found.disk_bytes >= 1_000_000
    os.mkdir("more", dir_fd=above)
    os.close(above)
    assert disk_usage(tmp_path, 1000).is_too_deep
    remove_tree(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_mark_of_another_user_counts_for_nothing(tmp_path: Path) -> None:
    """It is no secret, and the container would be killed for what others use."""
    mark = f"{tmp_path}/run/m@1-1"
    program = "import os, sys; os.setgid(65534); os.setuid(65534); print('up', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-S", "-c", program]
    with subprocess.Popen(argv, env={MARK: mark}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        assert mark not in Census({0}).look()
        assert [entry.pid for entry in Census({0, 65534}).look()[mark]] == [process.pid]
        process.stdin.close()


@pytest.mark.parametrize("max_files", [0, 10, 50])
def test_counting_ends_at_the_bound(tmp_path: Path, max_files: int) -> None:
    for number in range(100):
        (tmp_path / str(number)).mkdir()
        os.link(__file__, tmp_path / str(number) / "file")
    assert max_files < disk_usage(tmp_path, max_files).files <= 200


# In namespaces of its own, where the first process is root's, and this one nobody's.
OF_NOBODY = """
import os, subprocess
from clipper.base.processes.census import Census
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=1", "proc", "/proc"], check=True)
if os.fork() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        open("/proc/1/stat").close()
    except PermissionError:
        print(Census({65534}).look(), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a /proc that hides others' processes")
def test_processes_that_may_not_be_looked_at_are_left_out() -> None:
    command = ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", OF_NOBODY]
    seen = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if "unshare failed" in seen.stderr or "mount" in seen.stderr:
        pytest.skip(f"this machine does not let root do it: {seen.stderr}")
    assert seen.stdout == "{}\n", seen.stderr
