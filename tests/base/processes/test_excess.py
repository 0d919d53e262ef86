from dataclasses import replace

import pytest

from clipper.base.processes.excess import Bounds, Usage, excess

MIB = 1024**2
BOUNDS = Bounds(memory_bytes=512 * MIB, threads=100, disk_bytes=200 * MIB, files=1000)
AT_ITS_BOUNDS = Usage(processes=2, threads=100, memory_bytes=512 * MIB, disk_bytes=200 * MIB, files=1000)


def test_what_is_within_its_bounds_has_no_excess() -> None:
    assert excess(AT_ITS_BOUNDS, BOUNDS) is None
    assert excess(replace(AT_ITS_BOUNDS, memory_bytes=1 << 50), replace(BOUNDS, memory_bytes=None)) is None


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (
            replace(AT_ITS_BOUNDS, memory_bytes=2048 * MIB),
            "took 2,048 MiB of memory in 2 processes: its bound is 512 MiB",
        ),
        (
            replace(AT_ITS_BOUNDS, memory_bytes=513 * MIB, processes=1),
            "took 513 MiB of memory: its bound is 512 MiB",
        ),
        (replace(AT_ITS_BOUNDS, threads=101), "had 101 threads in 2 processes: the bound is 100"),
        (replace(AT_ITS_BOUNDS, disk_bytes=300 * MIB), "wrote 300 MiB to its folder: the bound is 200 MiB"),
        (replace(AT_ITS_BOUNDS, files=1001), "made 1001 files in its folder: the bound is 1000"),
    ],
)
def test_what_it_has_too_much_of(usage: Usage, words: str) -> None:
    assert excess(usage, BOUNDS) == words
