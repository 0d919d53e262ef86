import pytest

from benchmarks.harness.load import Answer
from benchmarks.harness.series import WINDOW_S, steady_after_s, windows


def answer(at_s: float, latency_ms: float = 1, *, default: bool = False, status: int = 200) -> Answer[None]:
    body = b'{"default":true}' if default else b'{"default":false}'
    return Answer(None, status, body, at_s - latency_ms / 1e3, at_s)


def test_answers_are_cut_by_when_they_came() -> None:
    cut = windows([answer(9.99), answer(10.0), answer(10.1), answer(10.3), answer(10.5)], 10, 10.5)
    assert [window.per_s * WINDOW_S for window in cut] == [2, 1]
    assert [window.end_s for window in cut] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("answers", "meets"),
    [
        ([answer(0.1)], True),
        ([answer(0.1, latency_ms=21)], False),
        ([answer(0.1, default=True)], False),
        ([answer(0.1, status=503)], False),
        ([], False),
        ([answer(0.1)] * 199 + [answer(0.1, latency_ms=21)], True),
    ],
)
def test_window_meets_the_objective(answers: list[Answer[None]], meets: bool) -> None:
    (window,) = windows(answers, 0, WINDOW_S)
    assert window.meets(20) is meets


@pytest.mark.parametrize(
    ("good", "after_s"),
    [
        ([True] * 4, 0),
        ([True, False] + [True] * 4, 2 * WINDOW_S),
        ([True] * 3, None),
        ([True, True, False] * 5, None),
    ],
)
def test_steady_means_several_good_windows_in_a_row(good: list[bool], after_s: float | None) -> None:
    assert steady_after_s(good) == after_s
