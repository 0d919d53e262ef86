"""Which disks have too little room."""

import pytest

from clipper.supervisor.keepers.disks import FULL_BYTES, LOW_BYTES, DiskFacts, Disks, State, state_of

LARGE, SMALL = 100 * LOW_BYTES, 32 * FULL_BYTES


@pytest.mark.parametrize(
    ("free_bytes", "size_bytes", "before", "expected"),
    [
        (LOW_BYTES, LARGE, "room", "room"),
        (LOW_BYTES - 1, LARGE, "room", "low"),
        # Of a small disk a tenth is enough.
        (SMALL // 10 + 1, SMALL, "room", "room"),
        (SMALL // 10, SMALL, "room", "low"),
        (FULL_BYTES, LARGE, "room", "low"),
        (FULL_BYTES - 1, LARGE, "room", "full"),
        # About a bound it stays what it was.
        (LOW_BYTES, LARGE, "low", "low"),
        (round(1.25 * LOW_BYTES), LARGE, "low", "room"),
        (FULL_BYTES, LARGE, "full", "full"),
        (round(1.25 * FULL_BYTES), LARGE, "full", "low"),
        (LARGE, LARGE, "full", "room"),
    ],
)
def test_how_a_disk_is(free_bytes: int, size_bytes: int, before: State, expected: State) -> None:
    assert state_of(DiskFacts("/d", (), free_bytes, size_bytes), before) == expected


def test_a_problem_says_which_disk_how_much_is_free_and_what_is_refused() -> None:
    disks = Disks()
    assert disks.problems() == []
    refused = ("nothing can be changed", "feedback is refused")
    disks.note([DiskFacts("/home", refused, 0, LARGE), DiskFacts("/other", refused[1:], LOW_BYTES // 2, LARGE)])
    assert disks.problems() == [
        "the disk of /home is full, 0.0 MiB of 102,400 MiB are free: nothing can be changed, and feedback is refused; "
        "queries are answered. Free some space",
        "the disk of /other is nearly full, 512.0 MiB of 102,400 MiB are free: once it is full, feedback is refused",
    ]
    disks.note([DiskFacts("/other", refused[1:], LARGE, LARGE)])
    assert disks.problems() == [] and len(disks.facts) == 1
