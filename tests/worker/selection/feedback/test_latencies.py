"""A model's answers teach whether there is time to ask it; a slow one is tried again."""

import itertools

from clipper.worker.selection.feedback.latencies import ANSWERS, FIRST_TRY, MOST_TRY, Latencies


def test_nine_of_ten_answers_came_within_it() -> None:
    latencies = Latencies()
    assert latencies.expected_s("m:1") == 0.0
    for number in range(100):
        latencies.answered("m:1", 0.01 if number % 20 else 0.5)
    assert latencies.expected_s("m:1") == 0.01
    # A handful of slow ones, and it is slow.
    for _ in range(4):
        latencies.answered("m:1", 0.2)
    assert latencies.expected_s("m:1") >= 0.2
    assert latencies.expected_s("m:2") == 0.0


def test_a_miss_counts_as_longer_than_what_was_waited() -> None:
    latencies = Latencies()
    latencies.missed("m:1", 0.1)
    assert latencies.promise_s("m:1", 0.1) > 0.1


def test_what_was_too_slow_is_tried_ever_more_rarely() -> None:
    latencies = Latencies()
    latencies.answered("m:1", 1.0)
    tries = []
    for query in range(20 * MOST_TRY):
        if latencies.promise_s("m:1", 0.1) == 0.0:
            tries.append(query)
            latencies.asked("m:1")
            latencies.missed("m:1", 0.1)
    assert tries[0] == FIRST_TRY - 1
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps == sorted(gaps) and gaps[-1] == MOST_TRY


def test_one_that_is_fast_again_is_known_to_be_after_one_try() -> None:
    latencies = Latencies()
    for _ in range(ANSWERS):
        latencies.answered("m:1", 1.0)
    while latencies.promise_s("m:1", 0.1) > 0:
        pass
    assert latencies.promise_s("m:1", 0.1) == 0.0, "as long as no query has asked it"
    latencies.asked("m:1")
    latencies.answered("m:1", 0.02)
    assert latencies.promise_s("m:1", 0.1) == 0.02
    # And is tried as soon as at first, were it to become slow once more.
    for _ in range(ANSWERS):
        latencies.answered("m:1", 1.0)
    skipped = 0
    while latencies.promise_s("m:1", 0.1) > 0:
        skipped += 1
    assert skipped == FIRST_TRY - 1


def test_a_query_without_any_time_left_asks_none() -> None:
    latencies = Latencies()
    assert latencies.promise_s("m:1", -0.1) == 0.0  # not known, and 0 is still more than what is left
    latencies.answered("m:1", 0.1)
    latencies.follow(["m:2"])
    assert latencies.expected_s("m:1") == 0.0
