"""Memory for large batches: the same again, unless somebody has it still."""

import numpy as np
import pytest

from clipper.model.runtime.kept import MOST_KEPT_BYTES, KeptMemory


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@pytest.mark.parametrize("second", [1, 4096, 1_000_000])
def test_what_nobody_has_is_lent_again(second: int) -> None:
    kept = KeptMemory()
    view = kept.lend(1_000_000)
    first = address(view)
    del view
    again = kept.lend(second)
    assert len(again) == second
    assert address(again) == first


@pytest.mark.parametrize(
    "part",
    [
        lambda view: view,
        lambda view: view[10:20],
        lambda view: np.frombuffer(view, np.float32),
        lambda view: np.frombuffer(view[16:], np.float32).reshape(2, -1)[1:, :3],
        lambda view: memoryview(np.frombuffer(view, np.uint8)[5:]).cast("B"),
    ],
    ids=["view", "slice", "array", "array of arrays", "view of an array"],
)
def test_what_somebody_has_stays(part) -> None:
    kept = KeptMemory()
    view = kept.lend(80)
    view[:] = b"a" * 80
    had = part(view)
    content = bytes(had)
    del view
    kept.lend(80)[:] = b"b" * 80
    kept.lend(80)[:] = b"c" * 80
    assert bytes(had) == content


def test_memory_grows_with_a_larger_batch() -> None:
    kept = KeptMemory()
    kept.lend(100)
    larger = kept.lend(200)
    assert len(larger) == 200
    first = address(larger)
    del larger
    assert address(kept.lend(200)) == first


def test_no_more_than_the_bound_is_kept() -> None:
    kept = KeptMemory()
    view = kept.lend(MOST_KEPT_BYTES)
    first = address(view)
    del view
    large = kept.lend(MOST_KEPT_BYTES + 1)
    assert address(large) != first
    assert address(kept.lend(1)) == first
