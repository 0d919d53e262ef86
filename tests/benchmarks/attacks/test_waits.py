import pytest

from benchmarks.attacks.waits import longest_waits_s


@pytest.mark.parametrize(
    ("waited_ms", "window_s", "share", "expected_ms"),
    [
        ([0, 0, 0, 0, 0], 2.0, 0.01, 0),
        ([0, 0, 5, 5, 5], 2.0, 0.01, 5),  # the wait is in each window that has room for its end
        ([0, 1, 2, 3, 4], 2.0, 0.01, 2),
        ([0, 9, 9, 9, 9], 1.0, 0.5, 0),  # one window of four
        ([0, 9], 5.0, 0.01, 0),  # no window ends within the samples
        ([0, 5000, 5000], 1.0, 0.01, 1000),  # it began before the window in which it is counted
        ([], 1.0, 0.01, 0),
    ],
)
def test_waits_in_windows(waited_ms: list[int], window_s: float, share: float, expected_ms: int) -> None:
    times_s = [float(index) for index in range(len(waited_ms))]
    found_s = longest_waits_s(times_s, [waited / 1000 for waited in waited_ms], window_s, share)
    assert found_s * 1000 == pytest.approx(expected_ms)
